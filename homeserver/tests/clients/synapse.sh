# Sourced after servers.sh: a real Synapse from PyPI as a peer on loopback, for federation tests only.

start_synapse() { # NAME: sets $base_url and $server_name
  local place=$work/$1 client_port federation_port; client_port=$(free_port); federation_port=$(free_port)
  mkdir -p "$place"
  need_venv synapse "$clients/synapse-requirements.txt"
  server_name=localhost:$federation_port base_url=http://127.0.0.1:$client_port
  make_certificate "$place/tls" localhost 127.0.0.1
  local fast='{per_second: 1000, burst_count: 1000}'
  cat >"$place/log.yaml" <<YAML
version: 1
formatters: {line: {format: "%(asctime)s %(levelname)s %(name)s %(message)s"}}
handlers: {file: {class: logging.FileHandler, formatter: line, filename: "$place/log"}}
root: {level: WARNING, handlers: [file]}
YAML
  cat >"$place/homeserver.yaml" <<YAML
server_name: "$server_name"
public_baseurl: "$base_url/"
pid_file: "$place/synapse.pid"
log_config: "$place/log.yaml"
signing_key_path: "$place/signing.key"
media_store_path: "$place/media"
macaroon_secret_key: stories
form_secret: stories
registration_shared_secret: "$secret"
tls_certificate_path: "$place/tls.crt"
tls_private_key_path: "$place/tls.key"
listeners:
  - {type: http, port: $client_port, bind_addresses: ["127.0.0.1"], tls: false, resources: [{names: [client, media]}]}
  - {type: http, port: $federation_port, bind_addresses: ["127.0.0.1"], tls: true, resources: [{names: [federation, media, keys]}]}
database: {name: sqlite3, args: {database: "$place/homeserver.db"}}
# a peer on loopback with a CA of its own
federation_custom_ca_list: ["$work/ca.crt"]
ip_range_blacklist: []
trusted_key_servers: []
suppress_key_server_warning: true
enable_registration: true
enable_registration_without_verification: true
bcrypt_rounds: 4
report_stats: false
rc_message: $fast
rc_registration: $fast
rc_login: {address: $fast, account: $fast, failed_attempts: $fast}
rc_joins: {local: $fast, remote: $fast}
rc_joins_per_room: $fast
rc_invites: {per_room: $fast, per_user: $fast, per_issuer: $fast}
rc_room_creation: $fast
rc_federation: {sleep_limit: 200, window_size: 1000, concurrent: 20}
YAML
  local python=$tools/synapse/bin/python
  "$python" -m synapse.app.homeserver --config-path "$place/homeserver.yaml" --generate-keys >"$place/keys.log" 2>&1
  SSL_CERT_FILE=$work/ca.crt "$python" -m synapse.app.homeserver --config-path "$place/homeserver.yaml" >"$place/out" 2>&1 </dev/null &
  echo $! >"$place/pid"
  answers curl -sf "$base_url/_matrix/client/versions" || { tail -n 20 "$place/out" >&2; die "Synapse does not answer"; }
}
