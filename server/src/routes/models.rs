//! `GET /v1/models` and `GET /v1/models/{id}`.

use axum::Json;
use axum::extract::{Path, State};

use crate::app::AppState;
use crate::error::ApiError;
use crate::openai::models::{ModelList, ModelObject};

/// The models of the cache, loaded or not.
pub(crate) async fn list(State(state): State<AppState>) -> Result<Json<ModelList>, ApiError> {
    Ok(Json(state.models.list().await?.into()))
}

/// One model; its id may hold `/`, as it is or as `%2F`.
pub(crate) async fn retrieve(
    State(state): State<AppState>,
    Path(id): Path<String>,
) -> Result<Json<ModelObject>, ApiError> {
    Ok(Json(state.models.describe(&id).await?))
}
