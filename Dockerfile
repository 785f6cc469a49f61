# chatmux in a container:  docker build -t chatmux . && docker run -p 8080:8080 -v chatmux:/var/lib/chatmux \
#     -e CHATMUX_AUTH_KEYS=sk-choose-one chatmux
# A gateway that others can reach does not start without a client key; that is what CHATMUX_AUTH_KEYS is for.
# A configuration file, if there is one, is mounted at /etc/chatmux/chatmux.ini.

FROM debian:13-slim AS build
RUN apt-get update && apt-get install -y --no-install-recommends make
WORKDIR /src
COPY third_party/deps.sh third_party/deps.sh
RUN third_party/deps.sh build
COPY Makefile config.example.ini ./
COPY packaging packaging
COPY include include
COPY src src
RUN make install DESTDIR=/out PREFIX=/usr

FROM debian:13-slim
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates libcurl4t64 libllhttp9.2 libsqlite3-0 \
        libssl3t64 libuv1t64 libyaml-0-2 libyyjson0 \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --home-dir /var/lib/chatmux --create-home --shell /usr/sbin/nologin chatmux
COPY --from=build /out/usr/bin/chatmux /usr/bin/chatmux
USER chatmux
WORKDIR /var/lib/chatmux
ENV STATE_DIRECTORY=/var/lib/chatmux
VOLUME /var/lib/chatmux
EXPOSE 8080
ENTRYPOINT ["/usr/bin/chatmux"]
CMD ["serve", "--listen", "0.0.0.0:8080"]
