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
    let draining = *state.draining.borrow();
    answer(draining, state.models.failure(), models_loaded, models_loading)
}

/// The process stays when a model's engine has ended, so that whoever watches it learns why.
fn answer(draining: bool, failure: Option<String>, models_loaded: usize, models_loading: usize) -> Response {
    let (code, status) = match &failure {
        _ if draining => (StatusCode::SERVICE_UNAVAILABLE, "draining"),
        Some(_) => (StatusCode::SERVICE_UNAVAILABLE, "engine stopped; restart the server"),
        None => (StatusCode::OK, "ok"),
    };
    let mut body = json!({"status": status, "models_loaded": models_loaded, "models_loading": models_loading});
    if let (Some(reason), Some(body)) = (failure, body.as_object_mut()) {
        body.insert("reason".into(), reason.into());
    }
    (code, Json(body)).into_response()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::Value;

    use super::*;

    async fn told(draining: bool, failure: Option<&str>) -> (StatusCode, Value) {
        let response = answer(draining, failure.map(str::to_owned), 1, 0);
        let status = response.status();
        let body = axum::body::to_bytes(response.into_body(), 1 << 10).await.unwrap();
        (status, serde_json::from_slice(&body).unwrap())
    }

    #[tokio::test]
    async fn an_engine_that_ended_is_unhealthy_and_says_why() {
        assert_eq!(told(false, None).await.0, StatusCode::OK);
        assert_eq!(told(true, None).await.1["status"], "draining");
        let (status, body) = told(false, Some("device failure: lost")).await;
        assert_eq!((status, &body["reason"]), (StatusCode::SERVICE_UNAVAILABLE, &"device failure: lost".into()));
    }
}
