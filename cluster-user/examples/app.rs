//! The demonstration: a plain HTTP server that knows nothing of clustering.
//!
//! It binds 0.0.0.0:8080 (or `PORT`) as any server does and answers every request with its process id
//! and the number its environment gives it. Run two of it by hand and the second fails: the address is
//! in use. Run eight of it with `cluster start app -i 8`.

use std::{
    env,
    io::{self, BufReader, Write as _},
    net::{TcpListener, TcpStream},
    process, thread,
};

fn main() -> io::Result<()> {
    let port = env::var("PORT").ok().and_then(|text| text.parse().ok()).unwrap_or(8080);
    let instance = env::var("NODE_APP_INSTANCE").unwrap_or_else(|_| "-".to_owned());
    let body = format!("pid {} instance {instance}\n", process::id());
    let listener = TcpListener::bind(("0.0.0.0", port))?;
    for stream in listener.incoming() {
        let body = body.clone();
        thread::spawn(move || answer(&stream?, &body));
    }
    Ok(())
}

/// Answers requests until the client closes, or asks for that.
fn answer(mut stream: &TcpStream, body: &str) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut requests = BufReader::new(stream);
    while let Some(request) = Request::read(&mut requests)? {
        let connection = if request.keep_alive { "keep-alive" } else { "close" };
        let response = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n\
             Connection: {connection}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(response.as_bytes())?;
        if !request.keep_alive {
            break;
        }
    }
    Ok(())
}

/// As much of a request as it takes to answer it. Bodies are not expected.
struct Request {
    keep_alive: bool,
}

impl Request {
    /// `None` when the client has closed.
    fn read(from: &mut impl io::BufRead) -> io::Result<Option<Self>> {
        let mut line = String::new();
        if from.read_line(&mut line)? == 0 {
            return Ok(None);
        }
        let mut keep_alive = !line.trim_end().ends_with("HTTP/1.0");
        loop {
            line.clear();
            if from.read_line(&mut line)? == 0 {
                return Ok(None);
            }
            let header = line.trim_end().to_ascii_lowercase();
            match header.as_str() {
                "" => return Ok(Some(Self { keep_alive })),
                "connection: close" => keep_alive = false,
                "connection: keep-alive" => keep_alive = true,
                _ => {}
            }
        }
    }
}
