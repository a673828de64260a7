//! `/health/live`: the process answers. `/health/ready` and `/health`: it takes requests.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::json;

use crate::app::AppState;

pub(crate) async fn live() -> Response {
    Json(json!({"status": "ok"})).into_response()
}

pub(crate) async fn ready(State(state): State<AppState>) -> Response {
    let (models_loaded, models_loading) = state.models.count();
    let (code, status) = if *state.draining.borrow() {
        (StatusCode::SERVICE_UNAVAILABLE, "draining")
    } else if state.models.has_engine_stopped() {
        (StatusCode::SERVICE_UNAVAILABLE, "engine stopped; restart the server")
    } else {
        (StatusCode::OK, "ok")
    };
    let body = json!({"status": status, "models_loaded": models_loaded, "models_loading": models_loading});
    (code, Json(body)).into_response()
}
