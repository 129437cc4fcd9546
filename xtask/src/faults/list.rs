//! The faults that Bellrope must survive, in groups, each with what stands against it. Their numbers are for good: a
//! fault that is struck leaves a gap.

/// A number, the fault, and the defence.
pub(crate) type Fault = (u32, &'static str, &'static str);

pub(crate) const GROUPS: &[(&str, &[Fault])] = &[
    (
        "Shared memory",
        &[
            (
                1,
                "A peer names a length or position outside its segment",
                "compared with the segment before use; that connection is closed",
            ),
            (
                2,
                "A peer's position goes back",
                "the last one believed is kept in private memory, and an older one is a violation",
            ),
            (
                3,
                "A peer overwrites the position that we publish",
                "we keep our own in private memory and never read it back",
            ),
            (
                4,
                "A length changes between its check and its use",
                "each word is loaded once; what was checked is what is used",
            ),
            (
                5,
                "A payload changes while it is being read",
                "payloads are copied to private memory before anything parses them",
            ),
            (
                6,
                "Concurrent writes make reading undefined",
                "no reference to shared bytes exists: atomic words, and copies made for racing writers, in one crate",
            ),
            (
                7,
                "Lengths that overflow, are zero, or are not aligned",
                "checked arithmetic on checked headers; sizes are whole words",
            ),
            (8, "A ring that never runs empty", "what one turn takes of a connection is bounded"),
            (
                9,
                "The memory is made smaller under us (SIGBUS)",
                "the server seals its size; a client checks seals and size before it maps",
            ),
            (10, "Pages are freed under us", "they read as zeros: an empty ring, or a record that is refused"),
            (
                11,
                "A process is killed within a record",
                "what was not committed is never seen; the memory goes with its last user",
            ),
            (
                12,
                "A client sees what its predecessor left",
                "each connection has memory of its own, made fresh and zeroed",
            ),
        ],
    ),
    (
        "Waking",
        &[
            (13, "A wake-up is lost", "the mark of a sleeper stands in the very word whose swap commits a record"),
            (14, "A wake-up without a cause", "the side that wakes looks again, and sleeps on if there is nothing"),
            (
                15,
                "A peer never rings",
                "every wait of a client has a deadline; at the server a request without a ring waits alone, and holds nothing",
            ),
            (
                16,
                "A peer rings without end",
                "rings are taken without blocking and counted; past the bound the connection is closed",
            ),
            (17, "A peer leaves its socket full", "ringing never blocks: a full socket has rings enough in it"),
            (18, "A peer forges the mark of a sleeper", "a system call too many, and no more"),
        ],
    ),
    (
        "Connections",
        &[
            (
                19,
                "A handshake that is slow or never ends",
                "a deadline for each, and a bound on how many are under way",
            ),
            (
                20,
                "Connections without end",
                "limits in all and for each user, refused in words; a process that breaks the protocol over and over waits",
            ),
            (21, "Descriptors that were not asked for", "no room for them is offered, so the kernel closes them"),
            (
                22,
                "No descriptor is left for a newcomer",
                "accepting rests, says so, and goes on when there are some again",
            ),
            (
                23,
                "Something leaks with every connection",
                "descriptors and mappings belong to one owner and go with it",
            ),
            (
                24,
                "A dead server's socket is in the way; two servers want one path",
                "lock, probe, unlink, bind, in this order",
            ),
            (
                25,
                "Another user's socket or directory is at the path",
                "the directory must be ours, real, and closed to others; a client trusts its own user's server and root's",
            ),
            (
                26,
                "A process id is used again",
                "nothing is decided by one: locks say who serves, the kernel's record of the moment of connecting says who calls",
            ),
            (
                27,
                "A child inherits a connection",
                "descriptors close when a program is started; the memory is left out of a forked child",
            ),
            (
                28,
                "The two sides speak different versions",
                "refused before memory is shared, with both versions in words",
            ),
            (
                29,
                "All clients come back at once",
                "one client of a process asks for the server, at irregular moments; the others follow in groups",
            ),
            (
                30,
                "A server is killed and started anew, again and again",
                "nothing that a dead server leaves can keep the next from starting",
            ),
        ],
    ),
    (
        "Fairness and memory",
        &[
            (31, "A client stops reading", "its bounded ring fills, it alone waits, and after a time it is closed"),
            (32, "A client floods the server", "a bounded visit each in turn"),
            (33, "Calls under way without end", "the server counts them, and refuses what is over the limit in words"),
            (
                34,
                "A hundred clients send the largest message at once",
                "one budget for all; what is over it waits in its own ring",
            ),
            (
                35,
                "A process is stopped, so that it neither works nor hangs up",
                "deadlines at the caller, a limit on stalling at the server",
            ),
            (
                36,
                "A handler that never returns",
                "an async one ends at its deadline; one that holds a worker makes `/live` fail, and a second signal ends the server",
            ),
        ],
    ),
    (
        "Calls",
        &[
            (
                37,
                "A crash takes an answer along",
                "the call ends as not executed or as unknown; nothing is sent again unasked",
            ),
            (
                38,
                "An answer comes after its call was given up",
                "ids are never used twice, so it matches nothing and is dropped",
            ),
            (
                39,
                "An answer that was not asked for, or a second one",
                "only a call that is under way takes one, and only the first",
            ),
            (40, "A deadline passes while a call waits", "looked at once more before it runs"),
            (
                41,
                "The clock jumps, or the machine sleeps",
                "deadlines, pauses and time-outs are counted on the monotonic clock alone",
            ),
            (
                42,
                "A handler panics, also with a payload that panics when dropped",
                "caught, and told to its caller; a panic within a drop that runs because of one ends the process, which no library can prevent",
            ),
        ],
    ),
    (
        "Circuit breaker",
        &[
            (43, "A permit is lost to a cancel, a panic or an early return", "dropping it gives its place back"),
            (44, "A permit from before settles what came after", "each carries the generation that it belongs to"),
            (45, "Too many probes", "each probe is decided where no other can be decided meanwhile"),
            (46, "Half-open, and no call comes", "that state ends by itself"),
            (47, "Clients' mistakes open it for all", "they do not count"),
        ],
    ),
    (
        "Operation and gateway",
        &[
            (
                48,
                "A peer's text steers or floods the log",
                "cut, freed of control characters, limited in rate, and what is left out is counted",
            ),
            (
                49,
                "A peer makes up labels of metrics",
                "labels come from the registry alone; everything else is one row",
            ),
            (
                50,
                "A server is told to stop while calls and streams are under way",
                "they end, within a time; what has not begun is refused",
            ),
            (51, "Slow, huge or very many requests for health", "a bounded listener on a thread of its own"),
            (52, "Readiness that is not true", "asked of the loops themselves, at that moment"),
            (
                53,
                "A provider's stream that is cut, split, malformed, endless or silent",
                "it ends exactly once: whole, as an error, cancelled, or truncated",
            ),
            (
                54,
                "An editor dies in the middle of an answer",
                "what it held is dropped, and with it the provider's socket",
            ),
            (
                55,
                "A key in a log, an error, an event or a metric",
                "a type that cannot be printed, and what providers quote is searched for it",
            ),
        ],
    ),
    (
        "What others' users met, and what broke the server",
        &[
            (
                56,
                "The peer lives in another namespace: its process id is 0, its user is not mapped",
                "credentials are read as they are; 0 means unknown, and the connection works; an unmapped user is refused in words",
            ),
            (
                57,
                "A connection ends without a reason",
                "every refusal and every drop has a reason, a counter and a line, limited in rate",
            ),
            (
                58,
                "A message that costs a multiple of its bytes: nested JSON, many small values",
                "the arguments of calls are kept as text; what else a request takes is counted before it is read, and needs room in the buffer budget; large requests are read by a thread without connections",
            ),
            (
                59,
                "One connection, process or user holds the buffer budget with what it does not read or send",
                "unread streams count as stalled; while others wait, no connection gets more than its share, and one that keeps \
                 them waiting with more than that is closed, the heaviest first",
            ),
            (
                60,
                "A caller's deadlines, cancels, input or death, or its failures alone, open a breaker that others share",
                "only the service's own failures count, and it opens for all by those of two callers, else for one alone",
            ),
            (
                61,
                "Standard error is a pipe that is not read",
                "a bounded queue and one thread that writes; what finds no room is lost, counted, and said later",
            ),
            (
                62,
                "Unfinished handshakes or silent connections take every place",
                "charged to their process, user or address; the oldest of the one that holds most gives way",
            ),
            (
                63,
                "A visit to a connection without end in time",
                "bounded in time as in messages, and of what many bring at once (rings, hang-ups, newcomers) each round does a few; after a long one the worker visits the connections that slept meanwhile",
            ),
            (
                64,
                "A handler blocks a worker or an async thread",
                "a bounded pool for handlers that block, a runtime of your own or as many async threads as are set; a handler that \
                 holds a thread for over 10 ms is counted, and named in the log once a minute",
            ),
            (
                65,
                "One connection's async calls run before all others'",
                "of each connection a few tasks are in the runtime's queue, and the others wait for their turn; answers and \
                 chunks are taken from the inbox in turns as well",
            ),
            (
                66,
                "A table of the kernel says less than it seems to",
                "a row speaks for a user only if both ends match, it is established and has an owner",
            ),
            (
                67,
                "A path is not ours any more: moved, removed, replaced",
                "only what has the device and inode that we made is removed, and only a socket that refuses counts as stale",
            ),
            (
                68,
                "The system denies what a server needs: filters, limits on files, processes, descriptors in flight",
                "refused at the start or for that connection, in words that name the limit; no abort, no panic",
            ),
            (
                69,
                "A queue that a peer fills by not reading while it sends",
                "every queue has a bound; credit waits once for each stream, and is the peer's only when it was sent",
            ),
            (
                70,
                "Half a surrogate pair in a text, alone or split over two pieces",
                "replaced or joined, and nothing is dropped for it",
            ),
            (
                71,
                "Calls of tools with missing, repeated or odd indices, ids, names and arguments",
                "one accumulator for all formats, streams and whole answers; bounded in number and bytes",
            ),
            (
                72,
                "A reason to stop that is empty or unknown, or a field that says that the server failed",
                "only known reasons end an answer, and every field that reports a failure is an error",
            ),
            (73, "An odd usage, cost or detail", "each count is read by itself, and none loses the answer"),
            (
                74,
                "A history, a tool or an option that one format allows and another refuses",
                "said in the way of the format, or refused with the field's name",
            ),
            (
                75,
                "A field of a request, or a piece of what was said, that goes no further",
                "named once, in the answer, in the header and in the log",
            ),
        ],
    ),
];
