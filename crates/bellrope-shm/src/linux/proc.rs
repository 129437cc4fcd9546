//! All that is read of `/proc` and `/sys`: what the kernel knows of a process and of the machine.
//!
//! What cannot be read is absent, never zero. No other file of what ships reads there, which `cargo xtask arrows` checks; tests,
//! and the comparison with peers, look for themselves.

use std::{
    fs,
    io::{self, BufRead, BufReader},
    net::{IpAddr, SocketAddr},
    ops::Range,
    path::{Path, PathBuf},
    sync::OnceLock,
    time::Duration,
};

use super::tcp_peer;

/// Clock ticks in a second as `/proc` counts them, the same on every architecture we run on.
const USER_HZ: f64 = 100.0;
/// The tables of TCP sockets of one network namespace. Programs that open IPv6 sockets for everything stand in the
/// second.
const TCP_TABLES: [&str; 2] = ["/proc/self/net/tcp", "/proc/self/net/tcp6"];

/// How they write that a connection is established.
const ESTABLISHED: &str = "01";
/// What the kernel puts in the place of users that a user namespace does not map, unless it is told otherwise.
const OVERFLOW_USER: u32 = 65_534;

/// How many descriptors a process may have open. [`u64::MAX`] where there is no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DescriptorLimits {
    /// What holds now.
    pub soft: u64,
    /// What it can be raised to.
    pub hard: u64,
}

/// What the kernel says of a process at one moment: `/proc/PID/status`.
#[derive(Debug, Clone)]
pub struct ProcessStatus(String);

/// A thread of a process.
#[derive(Debug, Clone)]
pub struct Thread {
    folder: PathBuf,
}

/// What a thread has had of the CPUs so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CpuShare {
    /// On a CPU.
    pub ran: Duration,
    /// Ready to run, and waiting for a CPU.
    pub waited: Duration,
}

impl ProcessStatus {
    /// The status of the process with this id.
    ///
    /// # Errors
    /// There is no such process, or `/proc` is not mounted.
    pub fn of(pid: u32) -> io::Result<Self> {
        fs::read_to_string(format!("/proc/{pid}/status")).map(Self)
    }

    /// A size in KiB, by the name of its line: `VmRSS`, `VmHWM`, `RssAnon`.
    #[must_use]
    pub fn kib(&self, name: &str) -> Option<u64> {
        let size = self.0.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        size.split_whitespace().next()?.parse().ok()
    }
}

impl Thread {
    /// Its name, cut to 15 bytes.
    ///
    /// # Errors
    /// The thread is not there any more.
    pub fn name(&self) -> io::Result<String> {
        Ok(fs::read_to_string(self.folder.join("comm"))?.trim_end().to_owned())
    }

    /// What it has had of the CPUs so far.
    ///
    /// # Errors
    /// The thread is not there any more, or the kernel does not keep account; [`io::ErrorKind::InvalidData`] if it
    /// says something else.
    pub fn cpu_share(&self) -> io::Result<CpuShare> {
        let path = self.folder.join("schedstat");
        let text = fs::read_to_string(&path)?;
        let mut numbers = text.split_whitespace().map(|nanos| nanos.parse().map(Duration::from_nanos));
        let (Some(Ok(ran)), Some(Ok(waited))) = (numbers.next(), numbers.next()) else {
            let fault = format!("{} does not say how long a thread waited", path.display());
            return Err(io::Error::new(io::ErrorKind::InvalidData, fault));
        };
        Ok(CpuShare { ran, waited })
    }

    /// How often it has left its CPU by itself so far, to wait for something: so often was it woken.
    ///
    /// # Errors
    /// The thread is not there any more; [`io::ErrorKind::InvalidData`] if the kernel does not say it.
    pub fn sleeps(&self) -> io::Result<u64> {
        let status = fs::read_to_string(self.folder.join("status"))?;
        let sleeps = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
        sleeps.and_then(|sleeps| sleeps.trim().parse().ok()).ok_or_else(|| io::ErrorKind::InvalidData.into())
    }
}

/// When this process was started, in seconds since 1970. To be asked once: the kernel works it out from the wall clock, so
/// it moves a little when that is set.
#[must_use]
pub fn start_time() -> Option<f64> {
    let stat = fs::read_to_string("/proc/stat").ok()?;
    let boot: u64 = stat.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()?;
    Some(boot as f64 + own_stat_field(22)? as f64 / USER_HZ)
}

/// When a process was started, in ticks since the system was: with its number this names it for ever. `None` where that
/// is not known, as of one that is gone, hidden, or in another PID namespace.
#[must_use]
pub fn started_at(pid: u32) -> Option<u64> {
    // The directory of number 0 does not exist.
    stat_field(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?, 22)
}

/// The name of a process, cut to 15 bytes. `None` where that is not known.
#[must_use]
pub fn name_of(pid: u32) -> Option<String> {
    Some(fs::read_to_string(format!("/proc/{pid}/comm")).ok()?.trim_end().to_owned())
}

/// Bytes of address space of this process.
#[must_use]
pub fn virtual_bytes() -> Option<u64> {
    own_stat_field(23)
}

/// Descriptors that this process has open.
#[must_use]
pub fn open_descriptors() -> Option<u64> {
    // Reading the directory takes one itself.
    fs::read_dir("/proc/self/fd").ok().map(|entries| (entries.count() as u64).saturating_sub(1))
}

/// The highest number that a descriptor of this process has.
pub(super) fn highest_descriptor() -> Option<i32> {
    let entries = fs::read_dir("/proc/self/fd").ok()?;
    entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).max()
}

/// How many descriptors this process may have open.
#[must_use]
pub fn descriptor_limits() -> Option<DescriptorLimits> {
    limits_on_open_files(&fs::read_to_string("/proc/self/limits").ok()?)
}

/// How many entries a folder of a process has: `fd` for its descriptors, `task` for its threads.
///
/// # Errors
/// There is no such process, or it is another user's.
pub fn entries(pid: u32, folder: &str) -> io::Result<usize> {
    Ok(fs::read_dir(format!("/proc/{pid}/{folder}"))?.count())
}

/// How many mappings a process has.
///
/// # Errors
/// As [`entries`].
pub fn mappings(pid: u32) -> io::Result<usize> {
    Ok(fs::read_to_string(format!("/proc/{pid}/maps"))?.lines().count())
}

/// The threads of a process.
///
/// # Errors
/// As [`entries`].
pub fn threads(pid: u32) -> io::Result<Vec<Thread>> {
    fs::read_dir(format!("/proc/{pid}/task"))?.map(|entry| Ok(Thread { folder: entry?.path() })).collect()
}

/// Has the kernel forget the highest resident memory of a process, so that `VmHWM` tells what came after.
///
/// # Errors
/// As [`entries`].
pub fn forget_peak_memory(pid: u32) -> io::Result<()> {
    fs::write(format!("/proc/{pid}/clear_refs"), "5")
}

/// Where another process finds what the process with this id has open under a number.
#[must_use]
pub fn path_of_descriptor(pid: u32, number: i32) -> PathBuf {
    format!("/proc/{pid}/fd/{number}").into()
}

/// The version of the kernel, as it names itself.
#[must_use]
pub fn kernel_release() -> Option<String> {
    line_of("/proc/sys/kernel/osrelease")
}

/// What the kernel's clock is read from.
#[must_use]
pub fn clock_source() -> Option<String> {
    line_of("/sys/devices/system/clocksource/clocksource0/current_clocksource")
}

/// Bytes of memory that the machine has to spare.
#[must_use]
pub fn available_memory() -> Option<u64> {
    in_kib(&fs::read_to_string("/proc/meminfo").ok()?, "MemAvailable:").map(|kib| kib * 1024)
}

/// Bytes of memory that this process and those of its control group may use, if there is a limit.
#[must_use]
pub fn memory_limit_of_group() -> Option<u64> {
    line_of("/sys/fs/cgroup/memory.max")?.parse().ok()
}

/// How long the host has kept the machine's CPUs for itself so far.
#[must_use]
pub fn host_took() -> Option<Duration> {
    // cpu user nice system idle iowait irq softirq steal ..., in hundredths of a second
    let text = fs::read_to_string("/proc/stat").ok()?;
    let steal: u64 = text.lines().next()?.split_whitespace().nth(8)?.parse().ok()?;
    Some(Duration::from_millis(steal * 10))
}

/// CPUs of the machine that are online.
pub(super) fn online_cpus() -> Option<usize> {
    count_of_ranges(&line_of("/sys/devices/system/cpu/online")?)
}

/// The CPUs of each NUMA node, as the kernel lists them (`0-3,8`), in no order. Empty where the system says nothing of nodes.
#[must_use]
pub fn cpus_of_nodes() -> Vec<String> {
    let cpus_of = |entry: io::Result<fs::DirEntry>| {
        let path = entry.ok()?.path();
        let number = path.file_name()?.to_str()?.strip_prefix("node")?;
        number.parse::<u32>().ok()?;
        line_of(path.join("cpulist"))
    };
    fs::read_dir("/sys/devices/system/node").into_iter().flatten().filter_map(cpus_of).collect()
}

/// The mappings of this process that hold code, or constants that lie before the code of the same file.
pub(super) fn constant_mappings() -> Option<Vec<Range<usize>>> {
    // Line by line: a server has one for each of its connections.
    constants_and_code(BufReader::new(fs::File::open("/proc/self/maps").ok()?)).ok()
}

/// The user who owns the other end of a TCP connection between two sockets of this network namespace: `theirs` is that
/// end, `ours` the end it is connected to. `None`: there is no such connection now, or nobody owns that end of it.
///
/// # Errors
/// The kernel's tables cannot be read.
pub fn user_of_tcp_peer(theirs: SocketAddr, ours: SocketAddr) -> io::Result<Option<u32>> {
    // The tables of a busy machine take milliseconds to read.
    if let Some(user) = tcp_peer::user_of(theirs, ours) {
        return Ok(Some(user));
    }
    for table in TCP_TABLES {
        let text = match fs::read_to_string(table) {
            Ok(text) => text,
            // A machine without IPv6 has no table of it.
            Err(error) if error.kind() == io::ErrorKind::NotFound && table != TCP_TABLES[0] => continue,
            Err(error) => return Err(error),
        };
        if let Some(user) = user_in_table(&text, theirs, ours) {
            return Ok(Some(user));
        }
    }
    Ok(None)
}

/// The user id that stands for every user that a user namespace does not map.
pub(super) fn overflow_user() -> u32 {
    static OVERFLOW: OnceLock<u32> = OnceLock::new();
    let read = || line_of("/proc/sys/kernel/overflowuid").and_then(|line| line.parse().ok());
    *OVERFLOW.get_or_init(|| read().unwrap_or(OVERFLOW_USER))
}

/// Whether the user namespace of this process has a user with this id. What cannot be read is not believed.
pub(super) fn maps_user(uid: u32) -> bool {
    fs::read_to_string("/proc/self/uid_map").is_ok_and(|map| is_mapped(&map, uid))
}

/// A file of one line.
fn line_of(path: impl AsRef<Path>) -> Option<String> {
    Some(fs::read_to_string(path).ok()?.trim().to_owned())
}

/// A number in `/proc/self/stat`, counted from 1 as in proc(5), from the third on.
fn own_stat_field(number: usize) -> Option<u64> {
    stat_field(&fs::read_to_string("/proc/self/stat").ok()?, number)
}

/// A field of a text like that of `/proc/self/stat`, counted from 1.
fn stat_field(stat: &str, number: usize) -> Option<u64> {
    // The second field is the program's name in brackets, which may hold anything, brackets and spaces too.
    let (_, rest) = stat.rsplit_once(") ")?;
    rest.split(' ').nth(number.checked_sub(3)?)?.parse().ok()
}

/// Soft and hard limit on open files, in a text like that of `/proc/self/limits`.
fn limits_on_open_files(limits: &str) -> Option<DescriptorLimits> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    let mut words =
        line.split_whitespace().map(|word| if word == "unlimited" { Some(u64::MAX) } else { word.parse().ok() });
    Some(DescriptorLimits { soft: words.next()??, hard: words.next()?? })
}

/// The number in the line of a text that begins so.
fn in_kib(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name))?.split_whitespace().next()?.parse().ok()
}

/// How many numbers a list of ranges such as `0-3,8` has.
fn count_of_ranges(list: &str) -> Option<usize> {
    list.split(',').try_fold(0_usize, |sum, range| {
        let (from, to) = range.split_once('-').unwrap_or((range, range));
        let (from, to): (usize, usize) = (from.parse().ok()?, to.parse().ok()?);
        Some(sum + to.checked_sub(from)? + 1)
    })
}

/// The mappings in a text like that of `/proc/PID/maps` that hold code, or constants that lie before the code of the same
/// file.
fn constants_and_code(mut maps: impl BufRead) -> io::Result<Vec<Range<usize>>> {
    let mut found = Vec::new();
    // Read-only mappings of one file that may turn out to lie before its code.
    let (mut file, mut before_code) = (String::new(), Vec::new());
    let mut line = String::new();
    while maps.read_line(&mut line)? > 0 {
        if let Some((range, permissions, path)) = mapping_of_file(&line) {
            if file != path {
                path.clone_into(&mut file);
                before_code.clear();
            }
            match permissions {
                "r--p" => before_code.push(range),
                "r-xp" => {
                    found.append(&mut before_code);
                    found.push(range);
                }
                _ => before_code.clear(),
            }
        }
        line.clear();
    }
    Ok(found)
}

/// The range, permissions and path of a mapping, if it is one of a file.
fn mapping_of_file(line: &str) -> Option<(Range<usize>, &str, &str)> {
    // address-address permissions offset device inode path
    let mut fields = line.split_whitespace();
    let (range, permissions, path) = (fields.next()?, fields.next()?, fields.nth(3)?);
    let (from, to) = range.split_once('-')?;
    let range = usize::from_str_radix(from, 16).ok()?..usize::from_str_radix(to, 16).ok()?;
    path.starts_with('/').then_some((range, permissions, path))
}

/// The user in the row of a table for the connection from `theirs` to `ours`.
///
/// A row speaks for a user only while the connection is established and has a socket. That of a connection that is over
/// (TIME_WAIT and others) names user 0 and no socket, whoever owned it; a row of the same address and another peer is
/// another connection's.
fn user_in_table(table: &str, theirs: SocketAddr, ours: SocketAddr) -> Option<u32> {
    let (theirs, ours) = (names(theirs), names(ours));
    table.lines().skip(1).find_map(|row| {
        // number local peer state queues timer retransmissions user time-out inode
        let mut fields = row.split_ascii_whitespace().skip(1);
        let (local, peer, state) = (fields.next()?, fields.next()?, fields.next()?);
        let (user, inode): (u32, u64) = (fields.nth(3)?.parse().ok()?, fields.nth(1)?.parse().ok()?);
        let is_it = theirs.iter().any(|name| name == local) && ours.iter().any(|name| name == peer);
        (is_it && state == ESTABLISHED && inode != 0).then_some(user)
    })
}

/// Whether a text like that of `/proc/PID/uid_map` maps this user of the inner namespace.
fn is_mapped(map: &str, uid: u32) -> bool {
    map.lines().any(|line| {
        // first inside, first outside, how many
        let mut numbers = line.split_ascii_whitespace().map(str::parse::<u64>);
        let (Some(Ok(first)), Some(Ok(_)), Some(Ok(count))) = (numbers.next(), numbers.next(), numbers.next()) else {
            return false;
        };
        (first..first.saturating_add(count)).contains(&uid.into())
    })
}

/// How the tables write an address: 32 bits at a time as the machine reads them, then the port.
fn names(address: SocketAddr) -> [String; 2] {
    let port = address.port();
    let word = |bytes: &[u8]| format!("{:08X}", u32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]));
    // An IPv6 socket names an IPv4 peer by an address of its own; the peer may be in either table.
    let ip = address.ip().to_canonical();
    let wide = match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
        IpAddr::V6(ip) => ip.octets(),
    };
    let wide: String = wide.chunks(4).map(word).collect();
    let narrow = match ip {
        IpAddr::V4(ip) => word(&ip.octets()),
        IpAddr::V6(_) => wide.clone(),
    };
    [format!("{narrow}:{port:04X}"), format!("{wide}:{port:04X}")]
}

#[cfg(test)]
mod tests {
    use std::time::{SystemTime, UNIX_EPOCH};

    use super::*;

    const HEAD: &str =
        "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n";

    #[test]
    fn the_start_was_not_long_ago_and_not_in_the_future() {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
        let started = start_time().unwrap();
        // The boot time is cut to whole seconds.
        assert!(started <= now + 1.0 && started > now - 3600.0, "started at {started}, now {now}");
    }

    #[test]
    fn what_the_kernel_writes_of_limits_and_memory_is_read() {
        let text = |soft: &str| format!("Limit  Soft Limit  Hard Limit  Units\nMax open files  {soft}  4096  files\n");
        let limits = |soft| Some(DescriptorLimits { soft, hard: 4096 });
        assert_eq!(limits_on_open_files(&text("1024")), limits(1024));
        assert_eq!(limits_on_open_files(&text("unlimited")), limits(u64::MAX));
        let text =
            "Limit       Soft  Hard  Units\nMax open files            1024                 unlimited            files";
        assert_eq!(limits_on_open_files(text), Some(DescriptorLimits { soft: 1024, hard: u64::MAX }));
        assert_eq!(in_kib("MemTotal: 1 kB\nMemAvailable:    77 kB", "MemAvailable:"), Some(77));
    }

    #[test]
    fn ranges_are_counted() {
        assert_eq!((count_of_ranges("0"), count_of_ranges("0-3,8")), (Some(1), Some(5)));
        assert_eq!((count_of_ranges(""), count_of_ranges("3-0"), count_of_ranges("x")), (None, None, None));
    }

    #[test]
    fn nodes_have_all_cpus_that_are_online() {
        // A kernel without NUMA says nothing of nodes.
        let of_nodes = cpus_of_nodes();
        let counted: usize = of_nodes.iter().filter_map(|cpus| count_of_ranges(cpus)).sum();
        assert!(of_nodes.is_empty() || Some(counted) == online_cpus(), "{of_nodes:?}");
    }

    #[test]
    fn this_process_is_known_from_within_and_from_without() {
        let file = fs::File::open("/proc/self/stat").unwrap();
        let pid = std::process::id();
        assert!(open_descriptors().unwrap() >= 4, "standard streams and {file:?}");
        let status = ProcessStatus::of(pid).unwrap();
        assert!(virtual_bytes().unwrap() > status.kib("VmRSS").unwrap() * 1024);
        assert_eq!((status.kib("Vm"), status.kib("Nothing")), (None, None));
        assert!(entries(pid, "fd").unwrap() >= 4 && mappings(pid).unwrap() > 1);
        let threads = threads(pid).unwrap();
        assert!(threads.iter().any(|thread| !thread.name().unwrap_or_default().is_empty()));
    }

    #[test]
    fn only_code_and_the_constants_before_it_are_dropped() {
        let maps = "\
1000-2000 r--p 00000000 fe:00 12 /bin/x
2000-4000 r-xp 00001000 fe:00 12 /bin/x
4000-5000 r--p 00003000 fe:00 12 /bin/x
5000-6000 rw-p 00004000 fe:00 12 /bin/x
6000-7000 rw-p 00000000 00:00 0 [heap]
7000-8000 r--p 00000000 fe:00 13 /data/file
8000-9000 r-xp 00000000 00:00 0 [vdso]
";
        assert_eq!(constants_and_code(maps.as_bytes()).unwrap(), [0x1000..0x2000, 0x2000..0x4000]);
    }

    /// A row of a table, for a connection of two ports of 127.0.0.1.
    #[cfg(target_endian = "little")]
    fn row(ports: [u16; 2], state: &str, user: u32, inode: u64) -> String {
        let [local, peer] = ports;
        format!(
            "   1: 0100007F:{local:04X} 0100007F:{peer:04X} {state} 00000000:00000000 00:00000000 00000000  {user}        \
             0 {inode} 1 x\n"
        )
    }

    // Fault 66.
    #[test]
    #[cfg(target_endian = "little")]
    fn a_row_speaks_for_a_user_only_if_both_ends_match_and_it_is_established_and_has_an_owner() {
        let local = |port: u16| SocketAddr::from(([127, 0, 0, 1], port));
        let of = |rows: &[String]| user_in_table(&format!("{HEAD}{}", rows.concat()), local(50_000), local(8_080));
        let whole = row([50_000, 8_080], "01", 1001, 7);
        assert_eq!(of(&[row([8_080, 50_000], "01", 0, 6), whole.clone()]), Some(1001), "not the row of our own end");
        // What the kernel writes of a connection that is over, of one half closed, of one under way, of one unowned.
        for state in ["02", "03", "04", "05", "06", "07", "08", "09", "0A", "0B", "0C"] {
            assert_eq!(of(&[row([50_000, 8_080], state, 0, 7)]), None, "state {state}");
        }
        assert_eq!(of(&[row([50_000, 8_080], "01", 0, 0)]), None, "no socket, no owner");
        assert_eq!(of(&[row([50_000, 8_081], "01", 0, 7)]), None, "a connection to somebody else");
        assert_eq!(of(&[row([50_000, 0], "0A", 0, 7)]), None, "a listener");
        // A row that says nothing does not hide the one that does.
        let stale = row([50_000, 8_080], "06", 0, 0);
        assert_eq!(of(&[stale, row([50_000, 8_081], "01", 0, 7), whole]), Some(1001));
        assert_eq!(of(&["nonsense\n\n 1: 0100007F:C350 0100007F:1F90 01\n".to_owned()]), None);
        assert_eq!(user_in_table("", local(1), local(2)), None);
    }

    // Fault 66.
    #[test]
    #[cfg(target_endian = "little")]
    fn a_program_with_ipv6_sockets_is_found_by_its_ipv4_address_and_by_its_own() {
        let mapped = |port: &str| format!("0000000000000000FFFF00000100007F:{port}");
        let of = |local: &str, peer: &str, theirs: SocketAddr, ours: SocketAddr| {
            let rest = "01 00000000:00000000 00:00000000 00000000  1002        0 3 3 x";
            user_in_table(&format!("{HEAD}   0: {local} {peer} {rest}\n"), theirs, ours)
        };
        let v4 = |port: u16| SocketAddr::from(([127, 0, 0, 1], port));
        assert_eq!(of(&mapped("C350"), &mapped("1F90"), v4(50_000), v4(8_080)), Some(1002));
        assert_eq!(of(&mapped("C350"), &mapped("1F91"), v4(50_000), v4(8_080)), None);
        // A listener of both families sees its IPv4 peers under such addresses; they themselves need not.
        let v4_in_v6 = |port: u16| SocketAddr::from((std::net::Ipv4Addr::LOCALHOST.to_ipv6_mapped(), port));
        assert_eq!(of("0100007F:C350", "0100007F:1F90", v4_in_v6(50_000), v4_in_v6(8_080)), Some(1002));
        let v6 = |port: u16| SocketAddr::from((std::net::Ipv6Addr::LOCALHOST, port));
        let own = |port: &str| format!("00000000000000000000000001000000:{port}");
        assert_eq!(of(&own("C350"), &own("1F90"), v6(50_000), v6(8_080)), Some(1002));
        assert_eq!(of(&own("C350"), &own("1F90"), v6(50_000), v6(8_081)), None);
    }

    // Fault 66.
    #[test]
    fn a_connection_of_our_own_is_found_in_the_tables_of_this_machine_until_it_ends() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let ours = listener.local_addr().unwrap();
        let stream = std::net::TcpStream::connect(ours).unwrap();
        let theirs = stream.local_addr().unwrap();
        let (accepted, _) = listener.accept().unwrap();
        assert_eq!(user_of_tcp_peer(theirs, ours).unwrap(), Some(super::super::process::user_id()));
        // Nobody connects from a port that only root may take, at an address that nobody uses.
        assert_eq!(user_of_tcp_peer(([127, 91, 82, 73], 1).into(), ours).unwrap(), None);
        assert_eq!(user_of_tcp_peer(theirs, ([127, 91, 82, 73], 1).into()).unwrap(), None);
        // Closed by its owner first, it stays in the table for a minute, as root's. A child that another test begins has it, too,
        // until it runs its program.
        drop(stream);
        let deadline = std::time::Instant::now() + Duration::from_secs(30);
        while user_of_tcp_peer(theirs, ours).unwrap().is_some() {
            assert!(std::time::Instant::now() < deadline, "it is still its owner's");
            std::thread::yield_now();
        }
        drop(accepted);
        assert_eq!(user_of_tcp_peer(theirs, ours).unwrap(), None);
    }

    #[test]
    fn a_user_that_a_namespace_does_not_map_is_told_from_one_of_that_number() {
        let whole = "         0          0 4294967295\n";
        assert!(is_mapped(whole, 0) && is_mapped(whole, 65_534));
        let container = "         0     100000       1000\n      2000     200000          1\n";
        assert!(is_mapped(container, 999) && is_mapped(container, 2000));
        assert!(!is_mapped(container, 1000) && !is_mapped(container, 2001) && !is_mapped(container, 65_534));
        assert!(!is_mapped("", 0) && !is_mapped("x y z\n1\n", 1));
        assert!(super::super::process::names_user(super::super::process::user_id()));
    }
}
