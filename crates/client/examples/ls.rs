//! Lists a directory: `cargo run -p client --example ls -- SOCKET [PATH]`.

use std::io::Write;
use std::os::unix::net::UnixStream;

use client::Client;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut words = std::env::args().skip(1);
    let (Some(socket), path) = (words.next(), words.next().unwrap_or_default()) else {
        return Err("want SOCKET [PATH]".into());
    };
    let (client, mounted) = Client::connect(UnixStream::connect(socket)?)?;
    // Shared memory in place of the socket, if the server has it.
    _ = client.open_channels(1);
    let found = client.find(mounted.root, path.as_bytes())?;
    let dir = client.open_at(found.control, 0)?;
    let mut out = std::io::stdout().lock();
    for entry in client.read_dir(dir.id) {
        let name = entry?.name;
        let stat = client.walk_stat(found.control, &[&name])?;
        // Gone since it was listed: then it is not there.
        if let Some(stat) = stat.first() {
            write!(out, "{:06o} {:>10} ", stat.mode, stat.size)?;
            out.write_all(&name)?;
            writeln!(out)?;
        }
    }
    Ok(())
}
