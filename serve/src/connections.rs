//! Connections, a task each. Who is slow with a request's headers is closed, so that such clients cannot pile up.

use axum::{Router, serve::Listener};
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::graceful::GracefulShutdown,
    service::TowerToHyperService,
};
use std::{pin::pin, time::Duration};
use tokio::net::TcpListener;

/// Answers connections until `end`, and goes on with the open ones until their requests are answered.
///
/// A connection may take as long as `headers` until a request's headers are there, from when it was accepted or the last
/// answer was sent. HTTP/1.1 alone: a server of both versions waits for the first bytes without a limit.
pub async fn serve(
    mut listener: TcpListener,
    router: Router,
    headers: Duration,
    end: impl Future<Output = ()>,
) {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(headers);
    let open = GracefulShutdown::new();
    let mut end = pin!(end);
    loop {
        let (stream, _) = tokio::select! {
            // Axum's own, which waits where the system has no more files to open.
            accepted = Listener::accept(&mut listener) => accepted,
            () = &mut end => break,
        };
        let service = TowerToHyperService::new(router.clone());
        let connection = open.watch(http.serve_connection(TokioIo::new(stream), service));
        tokio::spawn(async move {
            // An error is a client that left, or that spoke no HTTP: nobody is there to be told.
            let _ = connection.await;
        });
    }
    drop(listener);
    open.shutdown().await;
}
