//! nginx, set up to do nothing but forward.

use std::fs;
use std::process::Stdio;

use anyhow::Result;

use super::{PROXY_CORE, Running, Subject, folder, free_port, pinned, wait_for};
use crate::provision;

/// Starts nginx before a stub.
pub(in crate::bench) fn start(stub: &str, token: &str) -> Result<Subject> {
    let program = provision::nginx::nginx()?;
    let folder = folder("nginx")?;
    let port = free_port()?;
    let here = folder.display();
    let configuration = format!(
        "daemon off; worker_processes 1; pid {here}/pid; error_log {here}/error.log crit;
events {{ worker_connections 4096; }}
http {{
    access_log off;
    client_body_temp_path {here}/body; proxy_temp_path {here}/proxy; fastcgi_temp_path {here}/fastcgi;
    uwsgi_temp_path {here}/uwsgi; scgi_temp_path {here}/scgi;
    keepalive_requests 1000000000; keepalive_timeout 600s; tcp_nodelay on;
    upstream stub {{ server {stub}; keepalive 512; keepalive_requests 1000000000; }}
    server {{
        listen 127.0.0.1:{port} backlog=1024;
        location / {{
            proxy_pass http://stub; proxy_http_version 1.1; proxy_set_header Connection \"\";
            proxy_buffering off; proxy_request_buffering off;
        }}
    }}
}}
"
    );
    let file = folder.join("nginx.conf");
    fs::write(&file, configuration)?;
    let mut command = pinned(PROXY_CORE, &program.display().to_string());
    command.arg("-p").arg(&folder).arg("-c").arg(&file).stdout(Stdio::null()).stderr(Stdio::null());
    let process = Running::start(&mut command)?;
    wait_for(port)?;
    let address = format!("127.0.0.1:{port}");
    Ok(Subject {
        name: "nginx".to_owned(),
        address,
        fields: vec![format!("authorization: Bearer {token}")],
        process,
    })
}
