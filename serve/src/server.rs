//! A server from its settings to its end.

use crate::{
    access_log::{self, AccessLog},
    admission::{Admission, Limits, Need},
    auth::{self, Keys},
    connections,
    error::ApiError,
    health,
    metrics::Metrics,
    options::Options,
    page,
    routes::{chat, completions, models, status, tokenize},
    running::Running,
    served::Served,
    shutdown::{self, Drain},
    state::App,
};
use anyhow::{Context, Result, anyhow};
use axum::{
    Router,
    extract::{Request, State},
    http::{Uri, header::CONTENT_TYPE},
    middleware::{Next, from_fn, from_fn_with_state, map_response},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use futures::FutureExt;
use std::{
    net::SocketAddr,
    panic::AssertUnwindSafe,
    sync::{Arc, mpsc},
    thread::{self, JoinHandle},
    time::Duration,
};
use tokio::{net::TcpListener, sync::watch};

/// A running server, in a thread of its own; dropping it ends it in good order.
pub struct Server {
    address: SocketAddr,
    greeting: String,
    app: Option<Arc<App>>,
    stop: watch::Sender<bool>,
    thread: Option<JoinHandle<()>>,
}

/// What the server's thread tells once it listens.
type Started = Result<(SocketAddr, String, Arc<App>)>;

impl Server {
    /// Loads the model and listens.
    ///
    /// # Errors
    /// Wrong settings, a model that cannot be loaded, scores that are missing, or an address that is taken.
    pub fn start(options: Options) -> Result<Self> {
        let (tell, told) = mpsc::channel();
        let (stop, stopped) = watch::channel(false);
        // The engine's own runtime must neither begin nor end inside of another one.
        let thread = thread::Builder::new()
            .name("headkv-serve".into())
            .spawn(move || run(options, &tell, stopped))
            .context("cannot start the server's thread")?;
        let started = told.recv();
        let (address, greeting, app) =
            started.map_err(|_| anyhow!("the server's thread ended while it started"))??;
        Ok(Self {
            address,
            greeting,
            app: Some(app),
            stop,
            thread: Some(thread),
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What to tell whoever started it.
    pub fn greeting(&self) -> &str {
        &self.greeting
    }

    /// Bytes of keys and values held now.
    pub fn held_bytes(&self) -> usize {
        self.app
            .as_ref()
            .map_or(0, |app| app.served.model().held_bytes())
    }

    /// Bytes of prompts that are remembered, to be read on from.
    pub fn prefix_bytes(&self) -> usize {
        self.app
            .as_ref()
            .map_or(0, |app| app.served.model().remembered_bytes().0)
    }

    /// What requests have been promised.
    pub fn reserved(&self) -> Need {
        self.app
            .as_ref()
            .map_or(Need::default(), |app| app.admission.used())
    }

    /// Requests that wait for memory.
    pub fn waiting(&self) -> usize {
        self.app.as_ref().map_or(0, |app| app.admission.waiting())
    }

    /// Begins the end: new requests get 503.
    pub fn drain(&self) {
        self.stop.send_replace(true);
    }

    /// Serves until SIGTERM or Ctrl-C, which are left alone otherwise: a program may have handlers of its own.
    ///
    /// # Errors
    /// The system has no signals to wait for.
    pub fn until_signalled(self) -> Result<()> {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("cannot wait for signals")?
            .block_on(shutdown::signal());
        Ok(())
    }

    fn join(&mut self) {
        self.app = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.drain();
        self.join();
    }
}

fn run(options: Options, tell: &mpsc::Sender<Started>, stop: watch::Receiver<bool>) {
    let made = app(options).and_then(|app| {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("headkv-http")
            .enable_all()
            .build()
            .context("cannot start the server's threads")?;
        Ok((app, runtime))
    });
    let (app, runtime) = match made {
        Ok(made) => made,
        Err(error) => {
            let _ = tell.send(Err(error));
            return;
        }
    };
    runtime.block_on(async {
        match listen(&app).await {
            Ok((listener, address)) => {
                let greeting = greeting(&app, address);
                let _ = tell.send(Ok((address, greeting, app.clone())));
                serve(listener, app.clone(), stop).await;
            }
            Err(error) => {
                let _ = tell.send(Err(error));
            }
        }
    });
    // Connections that are still open hold the model, which must go last, and here.
    runtime.shutdown_timeout(Duration::from_secs(1));
}

fn app(options: Options) -> Result<Arc<App>> {
    let keys = match &options.api_key_file {
        Some(file) => Keys::read(file)?,
        None => Keys::default(),
    };
    let log = AccessLog::open(&options.log)?;
    let served = Served::load(&options)?;
    let admission = Admission::new(Limits {
        all: Need {
            bytes: options.kv_budget,
            sequences: options.max_seqs.get(),
        },
        request_bytes: options.request_kv.unwrap_or(options.kv_budget),
        queue: options.queue,
    });
    let metrics = Metrics::new(&served.name).context("the metrics' names")?;
    Ok(Arc::new(App {
        options,
        served,
        admission,
        running: Running::default(),
        metrics,
        drain: Drain::default(),
        keys,
        log,
    }))
}

async fn listen(app: &App) -> Result<(TcpListener, SocketAddr)> {
    let wanted = app.options.address;
    let listener = TcpListener::bind(wanted)
        .await
        .with_context(|| format!("cannot listen on {wanted}; choose another --port or --host"))?;
    let address = listener.local_addr().context("the address")?;
    Ok((listener, address))
}

fn greeting(app: &App, address: SocketAddr) -> String {
    let served = &app.served;
    let per_token = served.sizes.token_bytes();
    let budget = app.options.kv_budget;
    let open = if app.keys.is_empty() && !address.ip().is_loopback() {
        "\nwarning: everybody who reaches this address may ask; give --api-key-file"
    } else {
        ""
    };
    let read = match (app.options.prefix_bytes, served.model().starts_anew()) {
        (0, _) => String::new(),
        (_, Some(why)) => format!("; prompts are not read on from earlier ones: {why}"),
        (bytes, None) => format!(", {} MiB for prompts that were read", bytes >> 20),
    };
    format!(
        "{} with {} on http://{address}, {} MiB for keys and values ({} tokens of full caches){read}{open}",
        served.name,
        served.describe().unwrap_or_default(),
        budget >> 20,
        budget / per_token.max(1),
    )
}

/// Serves until `stop`, then until the last request or the limit.
async fn serve(listener: TcpListener, app: Arc<App>, mut stop: watch::Receiver<bool>) {
    let watcher = app.clone();
    let watching = tokio::spawn(async move { watcher.running.watch().await });
    let ending = {
        let app = app.clone();
        async move {
            // An error is the sender's end, which is an end as well.
            let _ = stop.wait_for(|stop| *stop).await;
            app.drain.begin();
        }
    };
    let (begun, mut end) = watch::channel(false);
    let finished = async move {
        // An error is the sender's end, which is an end as well.
        let _ = end.wait_for(|end| *end).await;
    };
    let headers = app.options.headers;
    let serving = connections::serve(listener, router(app.clone()), headers, finished);
    let serving = tokio::spawn(serving);
    ending.await;
    let idle = async {
        // New requests are still answered, with 503, until the last running one has ended.
        while app.running.count() > 0 || app.admission.waiting() > 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        begun.send_replace(true);
        let _ = serving.await;
    };
    if tokio::time::timeout(app.options.drain, idle).await.is_err() {
        tracing::warn!("requests were still running when the time to drain was up");
    }
    watching.abort();
}

/// All routes.
fn router(app: Arc<App>) -> Router {
    let asks = Router::new()
        .route("/v1/chat/completions", post(chat::create))
        .route("/v1/completions", post(completions::create))
        .route("/tokenize", post(tokenize::encode))
        .route("/detokenize", post(tokenize::decode))
        .layer(from_fn_with_state(app.clone(), shutdown::refuse));
    let keyed = asks
        .route("/v1/models", get(models::list))
        .route("/v1/models/{*name}", get(models::get))
        .route("/status", get(status::show))
        .layer(from_fn_with_state(app.clone(), auth::check));
    keyed
        .route("/", get(page::show))
        .route("/health", get(health::alive))
        .route("/ready", get(health::ready))
        .route("/metrics", get(metrics))
        .fallback(|uri: Uri| async move { ApiError::route(uri.path()) })
        .method_not_allowed_fallback(|| async { ApiError::method() })
        .layer(map_response(guard))
        .layer(from_fn(survive))
        .layer(from_fn_with_state(app.clone(), access_log::note))
        .with_state(app)
}

/// Nobody should guess what a body is.
async fn guard(mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.insert(
        "x-content-type-options",
        axum::http::HeaderValue::from_static("nosniff"),
    );
    response
}

/// A route that panics fails its own request.
async fn survive(request: Request, next: Next) -> Response {
    let answered = AssertUnwindSafe(next.run(request)).catch_unwind().await;
    answered.unwrap_or_else(|_| {
        ApiError::failed("the server failed this request; the others go on").into_response()
    })
}

async fn metrics(State(app): State<Arc<App>>) -> impl IntoResponse {
    let kind = "text/plain; version=0.0.4; charset=utf-8";
    ([(CONTENT_TYPE, kind)], app.metrics.text(&app))
}
