//! Writes a file to standard output: `cargo run -p client --example cat -- SOCKET PATH`.

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
    let opened = client.open_at(found.control, 0)?;
    let mut out = std::io::stdout().lock();
    if let Some(file) = opened.donated {
        // The file itself came along: no more requests.
        std::io::copy(&mut std::fs::File::from(file), &mut out)?;
        return Ok(());
    }
    let mut piece = vec![0; client.pread_bytes_max()];
    let mut offset = 0;
    loop {
        let bytes = client.pread(opened.id, offset, &mut piece)?;
        if bytes == 0 {
            return Ok(());
        }
        out.write_all(&piece[..bytes])?;
        offset += bytes as u64;
    }
}
