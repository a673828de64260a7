//! The accept loop: timeouts, connection limits, and an orderly end.

use std::collections::HashMap;
use std::io::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use crate::app::{self, AppState};
use crate::error::{ApiError, ServerError};
use crate::write_timeout::WriteTimeout;
use crate::{ServeArgs, limits};

/// Serves until SIGTERM or SIGINT (Ctrl-C); prints one line to standard output when ready.
///
/// After the first signal no connection is accepted and running answers may finish within 30 s;
/// a second signal ends the server at once.
///
/// # Errors
/// [`ServerError`] when the server can't start, and [`ServerError::Interrupted`] after a second
/// signal. The process should exit soon after: models may still be loading on other threads.
#[allow(clippy::needless_pass_by_value, reason = "the arguments belong to the server while it runs")]
pub async fn serve(args: ServeArgs) -> Result<(), ServerError> {
    let (draining, is_draining) = watch::channel(false);
    let (must_end, answers_must_end) = watch::channel(false);
    let state = AppState::new(&args, is_draining, answers_must_end)?;
    let router = app::router(&args, state)?;
    let mut signals = Signals::new().map_err(ServerError::Signals)?;
    let listener = bind(SocketAddr::new(args.host, args.port)).await?;
    announce(&listener);

    let connections = GracefulShutdown::new();
    tokio::select! {
        never = accept(&listener, &router, &connections) => match never {},
        () = signals.next() => {}
    }
    drop(listener);
    draining.send_replace(true);
    tracing::info!("draining");
    tokio::select! {
        () = connections.shutdown() => Ok(()),
        () = end_answers(&must_end) => Ok(()),
        () = signals.next() => Err(ServerError::Interrupted),
    }
}

/// Ends the answers that are still running late in the drain, then waits for its end.
async fn end_answers(must_end: &watch::Sender<bool>) {
    tokio::time::sleep(limits::DRAIN_ANSWERS).await;
    must_end.send_replace(true);
    tokio::time::sleep(limits::DRAIN.saturating_sub(limits::DRAIN_ANSWERS)).await;
    tracing::warn!("connections are cut: they did not end in time");
}

fn announce(listener: &TcpListener) {
    let Ok(address) = listener.local_addr() else { return };
    let mut out = std::io::stdout().lock();
    // A closed standard output is no reason not to serve.
    let _ = writeln!(out, "atelico-server listens on http://{address}").and_then(|()| out.flush());
}

async fn bind(address: SocketAddr) -> Result<TcpListener, ServerError> {
    match TcpListener::bind(address).await {
        Ok(listener) => Ok(listener),
        Err(source) => {
            let in_use = source.kind() == std::io::ErrorKind::AddrInUse;
            let hint = if in_use { in_use_hint(address).await } else { String::new() };
            Err(ServerError::Bind { address, source, hint })
        }
    }
}

async fn in_use_hint(address: SocketAddr) -> String {
    // 11434 is Ollama's port too.
    let owner = match tokio::time::timeout(Duration::from_millis(500), is_ollama(address)).await {
        Ok(Ok(true)) => "Ollama listens there",
        _ => "another program listens there",
    };
    format!("; {owner}: stop it, or choose another port with --port")
}

async fn is_ollama(address: SocketAddr) -> std::io::Result<bool> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(b"GET /api/version HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await?;
    let mut answer = Vec::new();
    stream.take(4096).read_to_end(&mut answer).await?;
    let answer = String::from_utf8_lossy(&answer);
    Ok(answer.starts_with("HTTP/1.1 200") && answer.contains("\"version\""))
}

/// Accepts connections for as long as it is polled.
async fn accept(listener: &TcpListener, router: &Router, connections: &GracefulShutdown) -> std::convert::Infallible {
    let all = Arc::new(Semaphore::new(limits::CONNECTIONS));
    let per_address = PerAddress::default();
    loop {
        // At the limit, peers wait in the operating system's queue.
        let Ok(permit) = Arc::clone(&all).acquire_owned().await else { continue };
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of file descriptors, or a peer that left already.
                tracing::warn!(%error, "accept failed");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let _ = stream.set_nodelay(true);
        match per_address.enter(peer.ip()) {
            Some(place) => {
                tokio::spawn(serve_connection(stream, router.clone(), connections.watcher(), (permit, place)));
            }
            None => {
                tracing::warn!(%peer, "too many connections");
                tokio::spawn(turn_away(stream));
            }
        }
    }
}

async fn serve_connection(
    stream: TcpStream,
    router: Router,
    connections: Watcher,
    _places: (OwnedSemaphorePermit, Place),
) {
    let io = TokioIo::new(WriteTimeout::new(stream, limits::WRITE_TIMEOUT));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits::HEADER_TIMEOUT)
        .max_headers(limits::HEADER_COUNT)
        .max_header_size(limits::HEADER_BYTES)
        .max_buf_size(2 * limits::HEADER_BYTES)
        .serve_connection(io, TowerToHyperService::new(router));
    if let Err(error) = connections.watch(connection).await {
        // Clients leave and time out all the time.
        tracing::debug!(%error, "connection ended");
    }
}

/// Tells a peer that it has too many connections.
async fn turn_away(mut stream: TcpStream) {
    let body =
        ApiError::overloaded(format!("this address has {} connections open already", limits::CONNECTIONS_PER_ADDRESS))
            .body()
            .to_string();
    let answer = format!(
        "HTTP/1.1 429 Too Many Requests\r\ncontent-type: application/json\r\ncontent-length: {}\r\nretry-after: {}\r\n\
         connection: close\r\n\r\n{body}",
        body.len(),
        limits::RETRY_AFTER_SECONDS
    );
    let _ = tokio::time::timeout(Duration::from_secs(1), stream.write_all(answer.as_bytes())).await;
}

/// Counts the connections of each remote address.
#[derive(Clone, Debug, Default)]
struct PerAddress(Arc<Mutex<HashMap<IpAddr, usize>>>);

impl PerAddress {
    /// A place for one more connection; `None` when the address has its share. Loopback is bound
    /// only by the total: everything on this machine shares that address.
    fn enter(&self, address: IpAddr) -> Option<Place> {
        let address = address.to_canonical();
        if !address.is_loopback() {
            let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let count = counts.entry(address).or_default();
            if *count >= limits::CONNECTIONS_PER_ADDRESS {
                return None;
            }
            *count += 1;
        }
        Some(Place { counts: self.clone(), address })
    }
}

/// A connection's place among those of its address.
#[derive(Debug)]
struct Place {
    counts: PerAddress,
    address: IpAddr,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counts = self.counts.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.address);
            }
        }
    }
}

/// The signals that end the server.
#[cfg(unix)]
struct Signals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl Signals {
    fn new() -> std::io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// The signals that end the server.
#[cfg(windows)]
struct Signals {
    ctrl_c: tokio::signal::windows::CtrlC,
    close: tokio::signal::windows::CtrlClose,
}

#[cfg(windows)]
impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self { ctrl_c: tokio::signal::windows::ctrl_c()?, close: tokio::signal::windows::ctrl_close()? })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.ctrl_c.recv() => {}
            _ = self.close.recv() => {}
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn connections_are_counted_per_remote_address() {
        let counts = PerAddress::default();
        let remote: IpAddr = "10.0.0.1".parse().unwrap();
        let mut places: Vec<_> = (0..limits::CONNECTIONS_PER_ADDRESS).map(|_| counts.enter(remote).unwrap()).collect();
        assert!(counts.enter(remote).is_none());
        assert!(counts.enter("::ffff:10.0.0.1".parse().unwrap()).is_none());
        assert!(counts.enter("10.0.0.2".parse().unwrap()).is_some());
        assert!((0..200).all(|_| counts.enter("127.0.0.1".parse().unwrap()).is_some()));
        places.pop();
        assert!(counts.enter(remote).is_some());
        drop(places);
        assert!(counts.0.lock().unwrap().is_empty());
    }
}
