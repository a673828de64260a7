//! Who may call: the Host header against DNS rebinding, and the origins of web pages (CORS).

use std::net::IpAddr;

use axum::extract::{Request, State};
use axum::http::{HeaderName, HeaderValue, Method, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use tower_http::cors::{AllowOrigin, CorsLayer};

use crate::ServeArgs;
use crate::error::{ApiError, ServerError};

/// The hosts that requests may name.
#[derive(Clone, Debug)]
pub(crate) struct AllowedHosts {
    /// Lower case, without port.
    names: Vec<String>,
    /// Listening on every interface: its addresses are not known here, but a rebinding page has a
    /// name, never an address, in its Host header.
    any_address: bool,
}

impl AllowedHosts {
    pub(crate) fn new(args: &ServeArgs) -> Result<Self, ServerError> {
        let mut names = vec![args.host.to_string()];
        for name in &args.allowed_host {
            let parsed = host_name(name).filter(|host| !host.is_empty() && !host.contains('/'));
            let expected = "host name (such as studio.local)";
            names.push(parsed.ok_or_else(|| ServerError::Argument { value: name.clone(), expected })?);
        }
        Ok(Self { names, any_address: args.host.is_unspecified() })
    }

    fn allows(&self, host: &str) -> bool {
        let Some(name) = host_name(host) else { return false };
        if name == "localhost" || name.ends_with(".localhost") || self.names.contains(&name) {
            return true;
        }
        name.parse::<IpAddr>().is_ok_and(|address| self.any_address || address.is_loopback())
    }
}

/// The host of `host[:port]`, in lower case, without the brackets of IPv6 and a closing dot.
fn host_name(host: &str) -> Option<String> {
    let is_port = |port: &str| port.bytes().all(|byte| byte.is_ascii_digit());
    let name = if let Some(rest) = host.strip_prefix('[') {
        let (address, port) = rest.split_once(']')?;
        (port.is_empty() || port.strip_prefix(':').is_some_and(is_port)).then_some(address)?
    } else if host.parse::<IpAddr>().is_ok() {
        host
    } else {
        match host.split_once(':') {
            Some((name, port)) => is_port(port).then_some(name)?,
            None => host,
        }
    };
    Some(name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase())
}

/// Refuses requests whose Host header names another host.
pub(crate) async fn check_host(State(hosts): State<AllowedHosts>, request: Request, next: Next) -> Response {
    let mut values = request.headers().get_all(header::HOST).iter();
    let host = values.next().and_then(|value| value.to_str().ok());
    let one = values.next().is_none();
    match host {
        Some(host) if one && hosts.allows(host) => next.run(request).await,
        _ => ApiError::forbidden_host(host).into_response(),
    }
}

/// Lets web pages of this machine and of `allowed_origin` read answers.
pub(crate) fn cors(args: &ServeArgs) -> Result<CorsLayer, ServerError> {
    let mut origins = Vec::new();
    for origin in &args.allowed_origin {
        let valid = origin.parse::<Uri>().is_ok_and(|uri| uri.scheme().is_some() && uri.host().is_some());
        let value = HeaderValue::from_str(origin.trim_end_matches('/')).ok().filter(|_| valid);
        let expected = "origin (such as https://example.com)";
        origins.push(value.ok_or_else(|| ServerError::Argument { value: origin.clone(), expected })?);
    }
    let allowed = AllowOrigin::predicate(move |origin, _| origins.contains(origin) || is_local(origin));
    Ok(CorsLayer::new()
        .allow_origin(allowed)
        .allow_methods([Method::GET, Method::POST])
        .allow_headers(tower_http::cors::AllowHeaders::mirror_request())
        .expose_headers([HeaderName::from_static("x-request-id"), header::RETRY_AFTER]))
}

fn is_local(origin: &HeaderValue) -> bool {
    let Some(uri) = origin.to_str().ok().and_then(|origin| origin.parse::<Uri>().ok()) else { return false };
    if !matches!(uri.scheme_str(), Some("http" | "https")) {
        return false;
    }
    let Some(name) = uri.authority().and_then(|authority| host_name(authority.as_str())) else { return false };
    name == "localhost" || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_and_configured_hosts_pass() {
        let hosts = AllowedHosts { names: vec!["192.168.1.5".into(), "studio.local".into()], any_address: false };
        for host in [
            "localhost",
            "LOCALHOST:11434",
            "127.0.0.1:1",
            "[::1]:80",
            "::1",
            "a.localhost",
            "studio.local.:9",
            "192.168.1.5",
        ] {
            assert!(hosts.allows(host), "{host}");
        }
        for host in [
            "evil.com",
            "localhost.evil.com",
            "evil.com:11434",
            "10.0.0.1",
            "localhost:x",
            "[::1",
            "[::1]x",
            "",
            "127.0.0.1.evil.com",
        ] {
            assert!(!hosts.allows(host), "{host}");
        }
        let any = AllowedHosts { names: Vec::new(), any_address: true };
        assert!(any.allows("10.0.0.1:11434") && !any.allows("evil.com"));
    }

    #[test]
    fn only_local_origins_pass_by_default() {
        let local = |origin: &str| is_local(&HeaderValue::from_str(origin).unwrap());
        assert!(local("http://localhost:3000") && local("https://127.0.0.1") && local("http://[::1]:8080"));
        assert!(
            !local("https://evil.com") && !local("null") && !local("file://") && !local("http://localhost.evil.com")
        );
    }
}
