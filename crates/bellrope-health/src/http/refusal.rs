//! Saying no to a connection that there is no place for.

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

/// Connections that are told no at the same time; further ones are closed as they are.
pub(super) const AT_ONCE: usize = 64;
/// How long telling it may take.
const PATIENCE: Duration = Duration::from_secs(1);
/// Bytes of a request that are taken and thrown away, so that the answer is not lost in the reset that a close with unread
/// bytes makes.
const MOST_READ: usize = 256 * 1024;

/// Answers 503 with this JSON, whatever is asked.
pub(super) async fn refuse(mut stream: TcpStream, body: &'static str) {
    let answer = format!(
        "HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nContent-Length: {}\r\nRetry-After: 1\r\n\
         X-Should-Retry: true\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
    let tell = async {
        stream.write_all(answer.as_bytes()).await?;
        stream.shutdown().await?;
        let (mut bytes, mut read) = ([0; 4096], 0);
        while read < MOST_READ {
            match stream.read(&mut bytes).await? {
                0 => break,
                count => read += count,
            }
        }
        std::io::Result::Ok(())
    };
    // Whoever does not take it has gone, or takes nothing.
    let _ = timeout(PATIENCE, tell).await;
}
