//! The application: routes under the layers that every request passes.

use std::any::Any;
use std::sync::Arc;

use atelico_engine::cache::Cache;
use atelico_engine::handle::LoadOptions;
use axum::Router;
use axum::http::{Method, Uri};
use axum::middleware;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use tokio::sync::{Semaphore, watch};
use tower::ServiceBuilder;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::request_id::{MakeRequestUuid, PropagateRequestIdLayer, SetRequestIdLayer};
use tower_http::trace::TraceLayer;

use crate::ServeArgs;
use crate::error::{ApiError, ServerError};
use crate::host::{self, AllowedHosts};
use crate::limits;
use crate::models::Models;
use crate::routes;

/// What routes share.
#[derive(Clone)]
pub(crate) struct AppState {
    pub(crate) models: Models,
    /// One permit per running answer.
    pub(crate) generations: Arc<Semaphore>,
    /// True once the server has been told to end.
    pub(crate) draining: watch::Receiver<bool>,
    /// True once answers must end because the server does.
    pub(crate) must_end: watch::Receiver<bool>,
}

impl AppState {
    pub(crate) fn new(
        args: &ServeArgs,
        draining: watch::Receiver<bool>,
        must_end: watch::Receiver<bool>,
    ) -> Result<Self, ServerError> {
        // A device that is not there is told at the start, not to the first client.
        args.device.open()?;
        let options = LoadOptions {
            device: args.device,
            precision: args.precision,
            cache: args.kv_cache,
            context: args.context,
            slots: args.slots,
            ..LoadOptions::default()
        };
        Ok(Self {
            models: Models::new(Cache::from_env()?, options),
            generations: Arc::new(Semaphore::new(limits::GENERATIONS)),
            draining,
            must_end,
        })
    }
}

/// The routes and their layers.
pub(crate) fn router(args: &ServeArgs, state: AppState) -> Result<Router, ServerError> {
    let routes = Router::new()
        .route("/v1/models", get(routes::models::list))
        .route("/v1/models/{*id}", get(routes::models::retrieve))
        .route("/v1/chat/completions", post(routes::chat::create))
        .route("/v1/completions", post(routes::completions::create))
        .route("/health", get(routes::health::ready))
        .route("/health/ready", get(routes::health::ready))
        .route("/health/live", get(routes::health::live))
        .with_state(state);
    layered(args, routes)
}

fn layered(args: &ServeArgs, routes: Router) -> Result<Router, ServerError> {
    let hosts = AllowedHosts::new(args)?;
    let cors = host::cors(args)?;
    // The first layer sees a request first and its answer last.
    let layers = ServiceBuilder::new()
        .layer(SetRequestIdLayer::x_request_id(MakeRequestUuid))
        .layer(TraceLayer::new_for_http().on_failure(()))
        .layer(PropagateRequestIdLayer::x_request_id())
        .layer(middleware::from_fn_with_state(hosts, host::check_host))
        .layer(cors)
        .layer(CatchPanicLayer::custom(answer_panic));
    Ok(routes.fallback(unknown_route).method_not_allowed_fallback(method_not_allowed).layer(layers))
}

async fn unknown_route(method: Method, uri: Uri) -> ApiError {
    ApiError::unknown_route(method.as_str(), uri.path())
}

async fn method_not_allowed(method: Method, uri: Uri) -> ApiError {
    ApiError::method_not_allowed(method.as_str(), uri.path())
}

#[allow(clippy::needless_pass_by_value, reason = "the signature is tower-http's")]
fn answer_panic(panic: Box<dyn Any + Send>) -> Response {
    let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    tracing::error!(panic = text.unwrap_or("of unknown type"), "a request panicked");
    ApiError::internal("internal error").into_response()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use axum::body::Body;
    use axum::http::{Request, StatusCode};
    use clap::Parser;
    use serde_json::Value;
    use tower::ServiceExt;

    use super::*;

    #[derive(Parser)]
    struct Args {
        #[command(flatten)]
        serve: ServeArgs,
    }

    fn args(more: &[&str]) -> ServeArgs {
        Args::parse_from([&["serve"], more].concat()).serve
    }

    async fn send(router: Router, request: axum::http::request::Builder) -> (StatusCode, Option<String>, Value) {
        let response = router.oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
        let id = response.headers().get("x-request-id").map(|id| id.to_str().unwrap().to_owned());
        let status = response.status();
        let body = axum::body::to_bytes(response.into_body(), 1 << 20).await.unwrap();
        (status, id, serde_json::from_slice(&body).unwrap_or_default())
    }

    #[tokio::test]
    async fn a_panic_is_an_error_object() {
        let routes = Router::new().route("/boom", get(|| async { panic!("boom") as () }));
        let router = layered(&args(&[]), routes).unwrap();
        let request = Request::get("/boom").header("host", "localhost").header("x-request-id", "mine");
        let (status, id, body) = send(router, request).await;
        assert_eq!(status, StatusCode::INTERNAL_SERVER_ERROR);
        assert_eq!(id.as_deref(), Some("mine"));
        assert_eq!(body["error"]["type"], "server_error");
        assert!(!body.to_string().contains("boom"));
    }

    #[tokio::test]
    async fn unknown_routes_and_hosts_are_error_objects() {
        let router = layered(&args(&["--allowed-host", "studio.local"]), Router::new()).unwrap();
        let (status, id, body) = send(router.clone(), Request::get("/nowhere").header("host", "studio.local:1")).await;
        assert_eq!((status, &body["error"]["code"]), (StatusCode::NOT_FOUND, &"unknown_url".into()));
        assert!(id.is_some());
        let (status, id, body) = send(router.clone(), Request::get("/nowhere").header("host", "evil.com")).await;
        assert_eq!((status, &body["error"]["code"]), (StatusCode::FORBIDDEN, &"host_not_allowed".into()));
        assert!(id.is_some());
        assert_eq!(send(router, Request::get("/nowhere")).await.0, StatusCode::FORBIDDEN);
    }

    #[test]
    fn malformed_hosts_and_origins_are_refused() {
        for bad in [["--allowed-host", "http://x/"], ["--allowed-origin", "example.com"]] {
            assert!(layered(&args(&bad), Router::new()).is_err(), "{bad:?}");
        }
    }
}
