//! The way not taken: a message in memory of its own, sealed against writing, of which the descriptor travels. Nothing is
//! copied out at the other end, but memory that can never be written again cannot be used again either: each message makes
//! its pages, fills them, has them mapped and gives them back.

use std::{
    hint::black_box,
    io,
    os::unix::net::UnixListener,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};
use bellrope_shm::{MemoryHandle, SealedBytes, socket::Socket};

use crate::server_process::ServerProcess;

const LINE: usize = 64;
/// How long the other side may send nothing. In a unit test there is none that does.
const PATIENCE: Duration = Duration::from_millis(if cfg!(test) { 20 } else { 10_000 });
/// Fruitless looks between two looks at the clock.
const LOOKS: u32 = 1_000;

/// The client's end of echoes by sealed memory. The server's ends with it.
pub(super) struct SealedEcho(Socket);

impl SealedEcho {
    /// Has the server answer.
    pub(super) fn start(server: &mut ServerProcess) -> anyhow::Result<Self> {
        let path = server.socket().with_file_name("sealed.sock");
        let listener = UnixListener::bind(&path).with_context(|| format!("listening at {}", path.display()))?;
        server.begin_sealed_echo(&path)?;
        let (stream, _) = listener.accept().context("waiting for the server")?;
        std::fs::remove_file(&path).with_context(|| format!("removing {}", path.display()))?;
        let socket = Socket::from(stream);
        socket.set_nonblocking(true)?;
        Ok(Self(socket))
    }

    /// Sends bytes there, waits for them to come back, and reads all of their cache lines.
    pub(super) fn round_trip(&self, payload: &[u8]) -> anyhow::Result<()> {
        send(&self.0, payload)?;
        let Some((fd, len)) = receive(&self.0)? else { bail!("the server hung up on sealed memory") };
        ensure!(len == payload.len(), "the echo by sealed memory has another size");
        read(&SealedBytes::open(&fd, len)?);
        Ok(())
    }
}

/// The server's side: connects, and answers until the client hangs up.
pub(crate) fn answer(path: &Path, ready: impl FnOnce()) -> anyhow::Result<()> {
    let socket = Socket::connect(path).with_context(|| format!("connecting to {}", path.display()))?;
    ready();
    while let Some((fd, len)) = receive(&socket)? {
        let request = SealedBytes::open(&fd, len)?;
        // The reply is made of the request, which is all the reading that an echo does.
        send(&socket, &request)?;
    }
    Ok(())
}

fn send(socket: &Socket, bytes: &[u8]) -> anyhow::Result<()> {
    let fd = SealedBytes::seal(bytes).context("sealing memory")?;
    let sent = socket.send_with_memory(&(bytes.len() as u64).to_le_bytes(), &fd).context("sending a descriptor")?;
    ensure!(sent == size_of::<u64>(), "a descriptor was sent with half its size");
    Ok(())
}

/// The next descriptor and its size; `None` when the other side has hung up. Spins, so that no time goes for waking.
fn receive(socket: &Socket) -> anyhow::Result<Option<(MemoryHandle, usize)>> {
    let (mut size, mut looks, mut since) = ([0; size_of::<u64>()], 0_u32, None);
    loop {
        match socket.receive_with_memory(&mut size) {
            Ok((0, _)) => return Ok(None),
            Ok((count, fd)) => {
                let fd = fd.filter(|_| count == size.len()).context("half a message came with a descriptor")?;
                return Ok(Some((fd, usize::try_from(u64::from_le_bytes(size))?)));
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => std::hint::spin_loop(),
            Err(error) => return Err(error).context("receiving a descriptor"),
        }
        looks += 1;
        if looks.is_multiple_of(LOOKS) && since.get_or_insert_with(Instant::now).elapsed() > PATIENCE {
            bail!("no sealed memory came for {PATIENCE:?}");
        }
    }
}

fn read(bytes: &[u8]) {
    black_box(bytes.iter().step_by(LINE).map(|byte| u64::from(*byte)).sum::<u64>());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_side_that_sends_nothing_or_breaks_off_is_told_of() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("sealed.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let error = answer(&path, || {}).unwrap_err().to_string();
        assert_eq!(error, "no sealed memory came for 20ms");
        // Whoever goes without having read all resets the connection.
        drop(listener.accept().unwrap());
        let socket = Socket::connect(&path).unwrap();
        socket.send(b"unread").unwrap();
        drop(listener.accept().unwrap());
        let error = receive(&socket).unwrap_err();
        assert_eq!(error.to_string(), "receiving a descriptor");
        let cause = error.downcast::<io::Error>().unwrap();
        assert_eq!(cause.kind(), io::ErrorKind::ConnectionReset);
    }
}
