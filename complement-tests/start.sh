#!/bin/sh
# Starts our server the way Complement wants it: named SERVER_NAME, clients on 8008, federation with TLS on 8448 under
# Complement's CA, everything in /data, anyone may register, nothing is limited, containers' private addresses are fine.
set -eu
ca=/complement/ca tls=/data/tls

# Kept when it is there: containers are committed and started again. The name is the container's, so it is made here.
mkdir -p "$tls"
if ! openssl verify -CAfile "$ca/ca.crt" "$tls/$SERVER_NAME.crt" >/dev/null 2>&1; then
  openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj "/CN=$SERVER_NAME" -keyout "$tls/$SERVER_NAME.key" -out "$tls/csr" 2>/dev/null
  printf 'subjectAltName=DNS:%s,DNS:localhost,IP:127.0.0.1\nbasicConstraints=CA:FALSE\nextendedKeyUsage=serverAuth\n' "$SERVER_NAME" >"$tls/extensions"
  openssl x509 -req -in "$tls/csr" -CA "$ca/ca.crt" -CAkey "$ca/ca.key" -CAserial "$tls/serial" -CAcreateserial -days 365 -extfile "$tls/extensions" -out "$tls/$SERVER_NAME.crt" 2>/dev/null
fi

registrations=
for file in /complement/appservice/*.yaml; do [ -f "$file" ] && registrations="$registrations${registrations:+,}$file"; done
[ -n "$registrations" ] && export VOICECHAT__APPSERVICES__REGISTRATIONS="$registrations"

# Many tests make rooms without a version and then name the creator among the power levels, which version 12 refuses; some use
# the media endpoints without authentication that the specification has deprecated; one wants to see devices' names elsewhere.
export VOICECHAT__ROOMS__DEFAULT_VERSION=11 VOICECHAT__MEDIA__UNAUTHENTICATED=true VOICECHAT__FEDERATION__DEVICE_NAMES=true

exec voicechat homeserver --data /data --server-name "$SERVER_NAME" --listen 0.0.0.0:8008 --federation-listen 0.0.0.0:8448 \
  --tls-certificate "$tls/$SERVER_NAME.crt" --tls-key "$tls/$SERVER_NAME.key" --trust-ca "$ca/ca.crt" \
  --open-registration --registration-shared-secret complement --allow-private-addresses --no-rate-limits
