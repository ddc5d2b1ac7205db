//! Shows all that lies below a directory: `cargo run -p client --example tree -- SOCKET [PATH]`.

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
    let mut out = std::io::stdout().lock();
    // Depth, id, name: no recursion, since how deep it goes is the server's word.
    let mut pending = vec![(0, found.control, path.into_bytes())];
    while let Some((depth, id, name)) = pending.pop() {
        write!(out, "{:1$}", "", 2 * depth)?;
        out.write_all(&name)?;
        writeln!(out)?;
        let is_dir = client.fstat(id)?.mode & 0o170_000 == 0o040_000;
        if is_dir {
            let dir = client.open_at(id, 0)?;
            for entry in client.read_dir(dir.id) {
                let name = entry?.name;
                let child = client.walk_one(id, &name)?;
                pending.push((depth + 1, child.control, name));
            }
            client.close(&[dir.id])?;
        }
        client.close(&[id])?;
    }
    Ok(())
}
