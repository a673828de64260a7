//! From a model's name to the model: the cache's models, loaded on first use, and the mocks.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use atelico_engine::Error;
use atelico_engine::cache::{Cache, CachedModel};
use atelico_engine::handle::{LoadOptions, ModelHandle};
use tokio::sync::watch;

use crate::error::ApiError;
use crate::mock::Mock;
use crate::openai::models::ModelObject;

/// The prefix of models that run in this process; also what a name without prefix means.
const IN_MEMORY: &str = "in-memory";
/// The id of the model that ships with the program; a model of the cache may take its place.
const BUILTIN: &str = "atelico-tiny";
/// The prefix of mocks.
const MOCK: &str = "mock";

/// A model's name: `prefix::name`, split at the first `::`.
#[derive(Clone, Debug, PartialEq, Eq)]
enum ModelName<'a> {
    InMemory(&'a str),
    Mock(Mock),
}

impl<'a> ModelName<'a> {
    fn parse(name: &'a str) -> Result<Self, ApiError> {
        match name.split_once("::") {
            None => Ok(Self::InMemory(name)),
            Some((IN_MEMORY, id)) => Ok(Self::InMemory(id)),
            Some((MOCK, mock)) => Mock::named(mock).map(Self::Mock).ok_or_else(|| {
                let known: Vec<_> = Mock::ALL.iter().map(|(name, _)| format!("{MOCK}::{name}")).collect();
                ApiError::model_not_found(format!("the model {name:?} does not exist; mocks: {}", known.join(", ")))
            }),
            Some((prefix, _)) => Err(ApiError::model_not_found(format!(
                "the model {name:?} does not exist: unknown prefix {prefix:?}; known: {IN_MEMORY}, {MOCK}"
            ))),
        }
    }
}

/// A model ready to answer.
#[derive(Clone, Debug)]
pub(crate) enum Model {
    Engine(ModelHandle),
    Mock(Mock),
}

/// What a load came to; `None` while it runs.
type Loaded = Option<Result<ModelHandle, ApiError>>;

#[derive(Debug)]
enum Slot {
    Ready(ModelHandle),
    Loading(watch::Receiver<Loaded>),
}

/// How models are loaded.
type Loader = dyn Fn(&Path) -> Result<ModelHandle, Error> + Send + Sync;

/// Every model that the server can answer with.
#[derive(Clone)]
pub(crate) struct Models {
    cache: Cache,
    /// The folder of the built-in model, when it is installed.
    builtin: Option<PathBuf>,
    loader: Arc<Loader>,
    slots: Arc<Mutex<HashMap<PathBuf, Slot>>>,
    /// Held while a model loads: two at once would compete for the device's memory.
    one_load: Arc<tokio::sync::Mutex<()>>,
}

impl Models {
    pub(crate) fn new(cache: Cache, options: LoadOptions) -> Self {
        let loader = move |path: &Path| atelico_models::load(path, &options);
        Self { builtin: atelico_models::builtin::path().ok(), ..Self::with_loader(cache, Arc::new(loader)) }
    }

    fn with_loader(cache: Cache, loader: Arc<Loader>) -> Self {
        Self { cache, builtin: None, loader, slots: Arc::default(), one_load: Arc::default() }
    }

    /// The model that `name` names, loaded if need be. However many ask for it at the same time,
    /// it loads once, and goes on loading when they leave.
    pub(crate) async fn get(&self, name: &str) -> Result<Model, ApiError> {
        let id = match ModelName::parse(name)? {
            ModelName::Mock(mock) => return Ok(Model::Mock(mock)),
            ModelName::InMemory(id) => id.to_owned(),
        };
        let path = self.resolve(id.clone()).await?;
        let mut loading = match self.ready_or_loading(id, path) {
            Ok(handle) => return Ok(Model::Engine(handle)),
            Err(loading) => loading,
        };
        let loaded = loading.wait_for(Option::is_some).await.map(|loaded| loaded.clone());
        match loaded {
            Ok(Some(loaded)) => loaded.map(Model::Engine),
            // The loading task ended without a result: it panicked.
            Ok(None) | Err(_) => Err(ApiError::load_failed(format!("the model {name:?} did not load"))),
        }
    }

    /// The model at `path`, or else what its load will come to; begins the load if need be.
    fn ready_or_loading(&self, id: String, path: PathBuf) -> Result<ModelHandle, watch::Receiver<Loaded>> {
        let mut slots = self.slots();
        match slots.get(&path) {
            Some(Slot::Ready(handle)) => return Ok(handle.clone()),
            Some(Slot::Loading(loading)) => return Err(loading.clone()),
            None => {}
        }
        let (sender, receiver) = watch::channel(None);
        slots.insert(path.clone(), Slot::Loading(receiver.clone()));
        drop(slots);
        let models = self.clone();
        tokio::spawn(async move {
            let result = models.load(&id, path.clone()).await;
            let mut slots = models.slots();
            match &result {
                Ok(handle) => slots.insert(path, Slot::Ready(handle.clone())),
                // The next request tries again: the files may have been repaired.
                Err(_) => slots.remove(&path),
            };
            drop(slots);
            sender.send_replace(Some(result));
        });
        Err(receiver)
    }

    async fn load(&self, id: &str, path: PathBuf) -> Result<ModelHandle, ApiError> {
        let _one = self.one_load.lock().await;
        tracing::info!(id, "loading");
        let loader = self.loader.clone();
        let loaded = tokio::task::spawn_blocking(move || loader(&path)).await;
        match loaded {
            Ok(Ok(handle)) => {
                tracing::info!(id, device = handle.info().device, load_ms = handle.info().load_ms, "loaded");
                Ok(handle)
            }
            Ok(Err(error)) => {
                tracing::error!(id, %error, "did not load");
                Err(ApiError::load_failed(format!("the model {id:?} did not load: {}", self.without_root(&error))))
            }
            Err(panic) => {
                tracing::error!(id, %panic, "loading panicked");
                Err(ApiError::load_failed(format!("the model {id:?} did not load: internal error")))
            }
        }
    }

    async fn resolve(&self, id: String) -> Result<PathBuf, ApiError> {
        let cache = self.cache.clone();
        let builtin = self.builtin.clone().filter(|_| id == BUILTIN);
        match blocking(move || cache.resolve(&id)).await? {
            Ok(path) => Ok(path),
            Err(Error::Model { .. }) if let Some(builtin) = builtin => Ok(builtin),
            Err(error @ Error::Model { .. }) => Err(ApiError::model_not_found(self.without_root(&error))),
            Err(error) => {
                tracing::error!(%error, "the model cache can't be read");
                Err(ApiError::internal(self.without_root(&error)))
            }
        }
    }

    /// An error's text without the cache's place on this machine, which is no client's business.
    fn without_root(&self, error: &Error) -> String {
        let root = self.cache.root().display().to_string();
        let text = error.to_string().replace(&format!("{root}{}", std::path::MAIN_SEPARATOR), "");
        if root.len() > 1 { text.replace(&root, "the model cache") } else { text }
    }

    /// Every model of the cache, and the built-in one.
    pub(crate) async fn list(&self) -> Result<Vec<ModelObject>, ApiError> {
        let cached = self.cached().await?;
        let slots = self.slots();
        let mut models: Vec<_> =
            cached.iter().map(|model| describe(model.id.clone(), Some(model), slots.get(&model.path))).collect();
        if let Some(path) = &self.builtin
            && cached.iter().all(|model| model.id != BUILTIN)
        {
            models.push(describe(BUILTIN.into(), None, slots.get(path)));
        }
        Ok(models)
    }

    /// The model that `name` names, without loading it.
    pub(crate) async fn describe(&self, name: &str) -> Result<ModelObject, ApiError> {
        let id = match ModelName::parse(name)? {
            ModelName::Mock(_) => return Ok(ModelObject { status: "loaded", ..describe(name.to_owned(), None, None) }),
            ModelName::InMemory(id) => id.to_owned(),
        };
        let path = self.resolve(id).await?;
        let cached = self.cached().await?;
        let model = cached.iter().find(|model| model.path == path);
        Ok(describe(name.to_owned(), model, self.slots().get(&path)))
    }

    async fn cached(&self) -> Result<Vec<CachedModel>, ApiError> {
        let cache = self.cache.clone();
        let cached = blocking(move || cache.list()).await?;
        cached.map_err(|error| ApiError::internal(self.without_root(&error)))
    }

    /// Ids of the models that are loaded, and of those that are loading.
    pub(crate) fn count(&self) -> (usize, usize) {
        let slots = self.slots();
        let loaded = slots.values().filter(|slot| matches!(slot, Slot::Ready(_))).count();
        (loaded, slots.len() - loaded)
    }

    /// Why the engine of a loaded model has ended, if one has; there is no way back but a restart.
    pub(crate) fn failure(&self) -> Option<String> {
        let slots = self.slots();
        let mut handles = slots.values().filter_map(|slot| match slot {
            Slot::Ready(handle) => Some(handle),
            Slot::Loading(_) => None,
        });
        handles.find_map(|handle| handle.failure().map(first_line))
    }

    fn slots(&self) -> MutexGuard<'_, HashMap<PathBuf, Slot>> {
        // The map is whole after every step, so a panic elsewhere does not spoil it.
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a health check says of a failure: devices add pages of state to theirs.
fn first_line(failure: &str) -> String {
    failure.lines().next().unwrap_or_default().to_owned()
}

fn describe(id: String, cached: Option<&CachedModel>, slot: Option<&Slot>) -> ModelObject {
    let (status, info) = match slot {
        None => ("available", None),
        Some(Slot::Loading(_)) => ("loading", None),
        Some(Slot::Ready(handle)) => ("loaded", Some(handle.info())),
    };
    let seconds = |time: SystemTime| time.duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_secs());
    ModelObject {
        id,
        object: "model",
        created: cached.map_or(0, |model| seconds(model.modified)),
        owned_by: "atelico",
        bytes: cached.map(|model| model.bytes),
        status,
        context_length: info.map(|info| info.context_length),
        architecture: info.map(|info| info.architecture.clone()),
    }
}

/// Runs work that reads files or computes for long beside the async threads.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, ApiError> {
    tokio::task::spawn_blocking(work).await.map_err(|error| {
        tracing::error!(%error, "a blocking task failed");
        ApiError::internal("internal error")
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use super::*;

    #[test]
    fn names_split_at_the_first_separator() {
        assert_eq!(ModelName::parse("org/model:q4").unwrap(), ModelName::InMemory("org/model:q4"));
        assert_eq!(ModelName::parse("in-memory::a::b").unwrap(), ModelName::InMemory("a::b"));
        assert_eq!(ModelName::parse("mock::").unwrap(), ModelName::Mock(Mock::Fixed));
        for unknown in ["mock::nothing", "cloud::x", "::x"] {
            let error = ModelName::parse(unknown).unwrap_err().body();
            assert_eq!(error["error"]["code"], "model_not_found", "{unknown}");
        }
    }

    /// A cache that holds the model `m`, whose loader counts and fails.
    fn failing_models(name: &str, loads: Arc<AtomicUsize>) -> Models {
        let root = std::env::temp_dir().join(format!("atelico-models-{name}-{}", std::process::id()));
        std::fs::create_dir_all(root.join("m")).unwrap();
        std::fs::write(root.join("m/config.json"), "{}").unwrap();
        std::fs::write(root.join("m/model.safetensors"), "").unwrap();
        let loader = move |path: &Path| {
            std::thread::sleep(Duration::from_millis(100));
            if loads.fetch_add(1, Ordering::SeqCst) > 0 {
                panic!("the second load panics");
            }
            Err(Error::Io { path: path.to_owned(), source: std::io::Error::other("damaged") })
        };
        Models::with_loader(Cache::at(root), Arc::new(loader))
    }

    #[tokio::test]
    async fn requests_at_the_same_time_share_a_load_and_its_failure() {
        let loads = Arc::new(AtomicUsize::new(0));
        let models = failing_models("share", loads.clone());
        let asks = (0..20).map(|_| {
            let models = models.clone();
            tokio::spawn(async move { models.get("m").await.map(|_| ()).unwrap_err() })
        });
        for ask in asks.collect::<Vec<_>>() {
            let error = ask.await.unwrap().body();
            assert_eq!(error["error"]["code"], "model_load_failed");
            let message = error["error"]["message"].as_str().unwrap();
            assert!(message.contains("damaged") && !message.contains("atelico-models"), "{message}");
        }
        assert_eq!(loads.load(Ordering::SeqCst), 1);
        assert_eq!(models.count(), (0, 0));
    }

    #[tokio::test]
    async fn a_load_that_panics_is_an_error() {
        let models = failing_models("panic", Arc::new(AtomicUsize::new(1)));
        let error = models.get("in-memory::m").await.map(|_| ()).unwrap_err().body();
        assert_eq!(error["error"]["code"], "model_load_failed");
        assert_eq!(models.describe("m").await.unwrap().status, "available");
    }
}
