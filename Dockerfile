# chatmux in a container:
#
#     docker build -t chatmux .
#     docker run -d --name chatmux -p 127.0.0.1:8080:8080 -v chatmux:/data -e CHATMUX_AUTH_KEYS=sk-choose-one --stop-timeout 330 chatmux
#
# Inside it listens on 0.0.0.0, on port 8080 or the one in PORT: a container's own loopback cannot be published. As for every gateway that others
# can reach it then wants a client key and does not start without one: CHATMUX_AUTH_KEYS, or auth.keys in the file (CHATMUX_AUTH_OPEN=yes lets
# everybody in).
#
# Configuration: variables (CHATMUX_SECTION_KEY), or a file mounted at /etc/chatmux/chatmux.ini, readable by user 10001. That it is a container
# (CHATMUX_CONTAINER) counts more than server.listen of the file; -e CHATMUX_SERVER_LISTEN=… changes the address.
#
# State is in /data. The container starts as root, makes that folder the gateway's and goes on as user 10001 (packaging/entry.sh); started with
# --user 10001 it never is root, and the folder must belong to that user.
#
# In the place of hixai2api, genspark2api or alexsidebar2api: their compose files and run lines with this image instead (docs/compat.md). Their
# ports are 7044, 7044 or 7055, and 10033; state is in the folder they mount, /app/NAME/data/chatmux.

FROM debian:13-slim AS build
WORKDIR /src
COPY third_party/deps.sh third_party/
COPY packaging/image.sh packaging/
RUN packaging/image.sh deps
COPY . .
RUN packaging/image.sh build /out

FROM debian:13-slim
COPY --from=build /out/ /
COPY packaging/image.sh /tmp/
RUN /tmp/image.sh runtime && rm /tmp/image.sh
ENV STATE_DIRECTORY=/data \
    CHATMUX_CONTAINER=yes
WORKDIR /data
VOLUME /data
EXPOSE 8080
HEALTHCHECK --interval=30s --timeout=15s --start-period=5s CMD ["chatmux", "status"]
ENTRYPOINT ["/usr/lib/chatmux/entry"]
CMD ["serve"]
