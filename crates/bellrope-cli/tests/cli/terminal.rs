//! Programs at a terminal, which is a pseudo-terminal here.

use std::{
    fs::File,
    io::{Read, Write},
    os::fd::OwnedFd,
    process::Stdio,
    sync::{Arc, Condvar, Mutex},
};

use nix::{
    fcntl::OFlag,
    pty::{grantpt, posix_openpt, ptsname_r, unlockpt},
};
use rustix::termios::{Winsize, tcsetwinsize};

use crate::support::{Finished, Home, PATIENCE, Running};

/// A program under way, and whoever sits at its terminal.
pub(crate) struct Terminal {
    keyboard: File,
    screen: Arc<Screen>,
    pub(crate) program: Running,
}

/// What stands on the screen, with all that steers it, and whether more can come.
#[derive(Default)]
struct Screen {
    state: Mutex<(String, bool)>,
    news: Condvar,
}

impl Terminal {
    /// Starts the program in a terminal of its own. `setsid` gives it the terminal, so that Ctrl-C reaches it.
    pub(crate) fn open(home: &Home, arguments: &[&str]) -> Self {
        let keyboard = posix_openpt(OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC).unwrap();
        grantpt(&keyboard).unwrap();
        unlockpt(&keyboard).unwrap();
        let line = File::options().read(true).write(true).open(ptsname_r(&keyboard).unwrap()).unwrap();
        tcsetwinsize(&line, Winsize { ws_row: 24, ws_col: 80, ws_xpixel: 0, ws_ypixel: 0 }).unwrap();

        let mut command = home.command(arguments);
        let mut command = {
            let mut outer = std::process::Command::new("setsid");
            outer.arg("--ctty").arg("--wait").arg(command.get_program()).args(command.get_args());
            outer.env_clear();
            for (name, value) in command.get_envs() {
                outer.env(name, value.unwrap_or_default());
            }
            command.env_clear();
            outer
        };
        command.env("TERM", "xterm").env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.env("XDG_STATE_HOME", home.path("state"));
        command.stdin(Stdio::from(line.try_clone().unwrap()));
        command.stdout(Stdio::from(line.try_clone().unwrap())).stderr(Stdio::from(line));
        let program = Running::start(&mut command);
        // The terminal's end closes with the program.
        drop(command);

        let keyboard = File::from(OwnedFd::from(keyboard));
        let screen = Arc::<Screen>::default();
        let (mut light, shown) = (keyboard.try_clone().unwrap(), Arc::clone(&screen));
        std::thread::spawn(move || shown.show(&mut light));
        Self { keyboard, screen, program }
    }

    pub(crate) fn press(&mut self, keys: &str) {
        self.keyboard.write_all(keys.as_bytes()).unwrap();
    }

    /// Waits until all of `texts` stand on the screen in this order, and wipes it up to there. Returns what it wiped.
    #[track_caller]
    pub(crate) fn shows(&self, texts: &[&str]) -> String {
        let find =
            |screen: &str| texts.iter().try_fold(0, |from, text| Some(from + screen[from..].find(text)? + text.len()));
        let state = self.screen.state.lock().unwrap();
        let waiting = |(shown, over): &mut (String, bool)| find(shown).is_none() && !*over;
        let (mut state, _) = self.screen.news.wait_timeout_while(state, PATIENCE, waiting).unwrap();
        let Some(end) = find(&state.0) else { panic!("{texts:?} is not shown, but:\n{:?}", state.0) };
        state.0.drain(..end).collect()
    }

    pub(crate) fn finish(self) -> Finished {
        self.program.finish()
    }
}

impl Screen {
    fn show(&self, light: &mut File) {
        let mut bytes = [0; 4096];
        // Reading fails when the last process at the terminal is gone.
        while let Ok(count @ 1..) = light.read(&mut bytes) {
            self.state.lock().unwrap().0.push_str(&String::from_utf8_lossy(&bytes[..count]));
            self.news.notify_all();
        }
        self.state.lock().unwrap().1 = true;
        self.news.notify_all();
    }
}
