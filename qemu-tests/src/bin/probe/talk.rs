//! One connection to the guest's network card, kept for as long as it lasts: a number goes out, the same comes back.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use qemu_tests::talk::{GUEST, PORT};

/// Longest silence: the guest may stand for a while, a connection that was lost stays silent for ever.
const SILENCE: Duration = Duration::from_secs(60);
/// Between two numbers.
const STEP: Duration = Duration::from_millis(50);

/// Prints `N us=T longest_us=L` for each number that came back.
pub fn run(out: &mut impl Write) -> Result<()> {
    let mut stream = TcpStream::connect_timeout(&SocketAddr::from((GUEST, PORT)), SILENCE).context("connect")?;
    stream.set_nodelay(true).context("socket")?;
    stream.set_read_timeout(Some(SILENCE)).context("socket")?;
    let mut longest = Duration::ZERO;
    for number in 1_u64.. {
        let asked = Instant::now();
        stream.write_all(&number.to_le_bytes()).context("write")?;
        let mut answer = [0; 8];
        stream.read_exact(&mut answer).context("read")?;
        ensure!(u64::from_le_bytes(answer) == number, "{number} came back as {answer:?}");
        longest = longest.max(asked.elapsed());
        writeln!(out, "{number} us={} longest_us={}", asked.elapsed().as_micros(), longest.as_micros())?;
        out.flush()?;
        thread::sleep(STEP);
    }
    Ok(())
}
