//! The options of `atelico-server` and `atelico serve`.

use std::net::IpAddr;

use atelico_engine::arithmetic::{CacheType, Precision, parse_precision};
use atelico_engine::device::DeviceSpec;

/// Examples for the help text of the commands that take [`ServeArgs`].
pub const SERVE_EXAMPLES: &str = "\
Examples:
  # Serve the cache's models to this machine, on the best device present
  atelico-server

  # Another port, on the first Vulkan adapter
  atelico-server --port 8080 --device vulkan:0

  # Serve the local network under a name of its own
  atelico-server --host 0.0.0.0 --allowed-host studio.local

Then:
  curl http://127.0.0.1:11434/v1/chat/completions -H 'content-type: application/json' \\
    -d '{\"model\": \"mock::\", \"messages\": [{\"role\": \"user\", \"content\": \"Hello\"}]}'";

/// What to serve, where.
#[derive(Clone, Debug, clap::Args)]
pub struct ServeArgs {
    /// Address to listen on
    #[arg(long, env = "ATELICO_HOST", default_value = "127.0.0.1", value_name = "ADDRESS")]
    pub host: IpAddr,
    /// Port to listen on; 0 takes a free one
    #[arg(long, env = "ATELICO_PORT", default_value_t = 11434)]
    pub port: u16,
    /// Device to run models on: auto, cpu, cuda[:N], vulkan[:N], metal, webgpu[:N]
    #[arg(long, env = "ATELICO_DEVICE", default_value = "auto")]
    pub device: DeviceSpec,
    /// Tokens of context per request, prompt and answer; default: what the model was made for, as
    /// far as memory allows
    #[arg(long, env = "ATELICO_CONTEXT", value_name = "TOKENS", value_parser = parse_positive)]
    pub context: Option<usize>,
    /// Requests that one model answers at the same time
    #[arg(long, visible_alias = "parallel", env = "ATELICO_SLOTS", default_value = "4", value_parser = parse_positive)]
    pub slots: usize,
    /// Arithmetic of products: f32, int8 (packed weights), bf16 or f16 (prompts on a GPU) [default: bf16
    /// on CUDA, elsewhere int8 for all but small models]
    #[arg(long, env = "ATELICO_PRECISION", value_name = "TYPE", value_parser = parse_precision)]
    pub precision: Option<Precision>,
    /// Element type of the key-value cache: f32, f16, bf16 or q8_0 [default: f16; f32 where the CPU
    /// computes in f32 and beside --precision f32]
    #[arg(long, env = "ATELICO_KV_CACHE", value_name = "TYPE")]
    pub kv_cache: Option<CacheType>,
    /// Further names that requests may use in their Host header (the loopback names and --host may
    /// always; this stops DNS rebinding)
    #[arg(long, env = "ATELICO_ALLOWED_HOSTS", value_delimiter = ',', value_name = "NAME")]
    pub allowed_host: Vec<String>,
    /// Further origins whose web pages may call the server, e.g. https://example.com (pages from
    /// localhost may always)
    #[arg(long, env = "ATELICO_ALLOWED_ORIGINS", value_delimiter = ',', value_name = "ORIGIN")]
    pub allowed_origin: Vec<String>,
}

fn parse_positive(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) => Err("must be at least 1".into()),
        Ok(n) => Ok(n),
        Err(error) => Err(format!("{error}")),
    }
}
