# One image for every role: `voicechat homeserver`, `voicechat voice`, or both with `voicechat up`.
#
#   docker build -t voicechat .                                     compiles in the image `rust`
#   docker build -t voicechat --build-arg BINARY=prebuilt .         takes target/dist/voicechat (cargo build --profile dist)
ARG BINARY=built

FROM rust:1.95-slim-bookworm AS built
WORKDIR /source
COPY . .
RUN cargo build --locked --profile dist -p voicechat && cp target/dist/voicechat /voicechat

FROM scratch AS prebuilt
COPY target/dist/voicechat /voicechat

FROM ${BINARY} AS binary

FROM debian:bookworm-slim
RUN command -v update-ca-certificates >/dev/null \
    || (apt-get update && apt-get install -y --no-install-recommends ca-certificates && rm -rf /var/lib/apt/lists/*)
RUN useradd --system --uid 10001 --home-dir /data voicechat && install -d -o voicechat -g voicechat -m 0700 /data
COPY --from=binary /voicechat /usr/local/bin/voicechat
USER voicechat
WORKDIR /data
VOLUME /data
ENV VOICECHAT__SERVER__DATA_DIR=/data \
    VOICECHAT__LISTEN__CLIENT=0.0.0.0:8008 \
    VOICECHAT__VOICE__LISTEN=0.0.0.0:8009
EXPOSE 8008 8009 8448 10000-10100/udp
STOPSIGNAL SIGTERM
ENTRYPOINT ["voicechat"]
CMD ["up"]
