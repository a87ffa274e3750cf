//! Who is answered: reads only, and only for a host name that is ours.
//!
//! A page on the web can have its own name resolve to 127.0.0.1 and then read what is served there (DNS rebinding). It cannot choose the Host header: that
//! has its name. So a name that was not allowed is refused; addresses and `localhost` cannot be rebound.
use axum::extract::{Request, State};
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use std::net::IpAddr;
use std::sync::Arc;

/// Nothing but ourselves: no inline script, no frame, no form, no other host.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Refuses what is not for us, and adds the headers that every answer has.
pub(crate) async fn check(State(hosts): State<Arc<[String]>>, request: Request, next: Next) -> Response {
    let mut response = match refusal(&hosts, &request) {
        Some(refusal) => refusal,
        None => next.run(request).await,
    };
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CACHE_CONTROL, "no-store"),
    ] {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

fn refusal(hosts: &[String], request: &Request) -> Option<Response> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let allow = [(header::ALLOW, "GET, HEAD")];
        return Some((StatusCode::METHOD_NOT_ALLOWED, allow, "only GET and HEAD: this server reads\n").into_response());
    }
    let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok());
    match host.map(host_name) {
        Some(name) if is_ours(name, hosts) => None,
        Some(_) => {
            let text = "this host name is not served: allow it with --host NAME, or use the address\n";
            Some((StatusCode::MISDIRECTED_REQUEST, text).into_response())
        }
        None => Some((StatusCode::BAD_REQUEST, "a Host header is missing\n").into_response()),
    }
}

/// The name or address of a Host header, without port and brackets.
fn host_name(host: &str) -> &str {
    if let Some((address, _)) = host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        return address;
    }
    host.rsplit_once(':').map_or(host, |(name, _)| name)
}

fn is_ours(name: &str, hosts: &[String]) -> bool {
    let name = name.strip_suffix('.').unwrap_or(name);
    name.parse::<IpAddr>().is_ok()
        || name.eq_ignore_ascii_case("localhost")
        || hosts.iter().any(|allowed| name.eq_ignore_ascii_case(allowed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_localhost_and_allowed_names_are_ours() {
        let allowed = ["gateway.example".to_owned()];
        for (host, expected) in [
            ("127.0.0.1:9464", true),
            ("[::1]:9464", true),
            ("localhost:9464", true),
            ("LOCALHOST", true),
            ("gateway.example:9464", true),
            ("Gateway.Example.", true),
            ("evil.example:9464", false),
            ("127.0.0.1.evil.example", false),
            ("localhost.evil.example", false),
            ("", false),
        ] {
            assert_eq!(is_ours(host_name(host), &allowed), expected, "{host}");
        }
    }
}
