"""How the peers are configured for measurements. Doubled braces are for `str.format`."""

from typing import Final

NGINX_COMMON: Final = """
daemon off; worker_processes 1; pid nginx.pid; error_log stderr error; worker_rlimit_nofile {nofile};
events {{ worker_connections {nofile}; }}
http {{
  access_log off; keepalive_requests 1000000000; keepalive_timeout 3600s; client_max_body_size 0;
  client_body_temp_path body; proxy_temp_path proxy;
  fastcgi_temp_path fcgi; uwsgi_temp_path uwsgi; scgi_temp_path scgi;
"""
NGINX_UPSTREAM: Final = """
  server {{
    listen 127.0.0.1:{port} backlog=4096; default_type text/plain;
    location / {{ return 200 "{answer}"; }}
    location /api/ {{
      add_header ETag $request_id; add_header X-Request-ID $request_id; return 200 "{answer}";
    }}
  }}
}}
"""
NGINX_PROXY: Final = """
  map $http_x_forwarded_proto $proto {{ default {proto}; "" $scheme; }}
  map $http_x_forwarded_host $said_host {{ default {host}; "" $http_host; }}
  upstream app {{ server 127.0.0.1:{upstream}; keepalive 512; keepalive_requests 1000000000; }}
  server {{
    listen 127.0.0.1:{port} backlog=4096;
    location / {{
      proxy_pass http://app; proxy_http_version 1.1; proxy_set_header Connection "";
      proxy_request_buffering off;
      proxy_set_header Host $http_host; proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
      proxy_set_header X-Forwarded-Proto $proto; proxy_set_header X-Forwarded-Host $said_host;
      proxy_set_header X-Request-ID $request_id;
    }}
  }}
}}
"""
HAPROXY: Final = """
global
  nbthread 1
  maxconn {maxconn}
  no strict-limits
defaults
  mode http
  timeout connect 2s
  timeout client 75s
  timeout server 30s
  timeout http-keep-alive 75s
  option forwardfor
  http-reuse always
  unique-id-format %[uuid()]
  unique-id-header X-Request-ID
frontend in
  bind 127.0.0.1:{port} backlog 4096
  http-request set-header X-Forwarded-Proto http{unless_proto}
  http-request set-header X-Forwarded-Host %[req.hdr(host)]{unless_host}
  default_backend app
backend app
  server app 127.0.0.1:{upstream}
"""
CADDY: Final = """
{{
  admin off
  auto_https off
  {trust}
}}
http://:{port} {{
  bind 127.0.0.1
  reverse_proxy 127.0.0.1:{upstream} {{
    header_up X-Request-ID {{http.request.uuid}}
    transport http {{
      keepalive_idle_conns 512
      keepalive_idle_conns_per_host 512
    }}
  }}
}}
"""
GATEWAY: Final = """
workers = 1
[listen]
address = "127.0.0.1:{port}"
trusted_proxies = [{trusted}]
[admin]
address = "127.0.0.1:{admin}"
[store]
url = "sqlite:///{folder}/gateway.db"
{extra}
"""
GATEWAY_SERVICE: Final = """
[[service]]
name = "{name}"
routes = [{routes}]
{policies}
"""
GATEWAY_VERSION: Final = """
[[service.version]]
version = "{version}"
url = "http://127.0.0.1:{upstream}"
weight = {weight}
"""
ENVOY: Final = """
static_resources:
  listeners:
  - address: {{socket_address: {{address: 127.0.0.1, port_value: {port}}}}}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": {types}/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: in
          use_remote_address: true
          xff_num_trusted_hops: {hops}
          preserve_external_request_id: true
          route_config:
            virtual_hosts:
            - name: all
              domains: ["*"]
              request_headers_to_add:
              - header: {{key: X-Forwarded-Host, value: "%REQ(:authority)%"}}
                append_action: ADD_IF_ABSENT
              routes:
              - match: {{prefix: /}}
                route: {{cluster: app}}
          http_filters:
          - name: envoy.filters.http.router
            typed_config:
              "@type": {types}/envoy.extensions.filters.http.router.v3.Router
  clusters:
  - name: app
    type: STATIC
    load_assignment:
      cluster_name: app
      endpoints:
      - lb_endpoints:
        - endpoint: {{address: {{socket_address: {{address: 127.0.0.1, port_value: {upstream}}}}}}}
"""
TRAEFIK: Final = """
entryPoints:
  web:
    address: "127.0.0.1:{port}"
    forwardedHeaders: {{insecure: {trusts}}}
providers:
  file: {{filename: "{routes}"}}
global: {{checkNewVersion: false, sendAnonymousUsage: false}}
log: {{level: ERROR}}
"""
TRAEFIK_ROUTES: Final = """
http:
  routers:
    all: {{rule: "PathPrefix(`/`)", service: app, entryPoints: [web]}}
  services:
    app:
      loadBalancer:
        servers: [{{url: "http://127.0.0.1:{upstream}"}}]
"""
