// Forward proxies for tests: HTTP (absolute-form requests and CONNECT) and SOCKS5. Both resolve names by a table of the
// test's, so that a request which reaches a name only they know has certainly come through them.
import http from 'node:http';
import net from 'node:net';
import { atEnd } from './gateway.mjs';

function track(t, server) {
    const sockets = new Set();
    server.on('connection', (socket) => {
        sockets.add(socket);
        socket.on('close', () => sockets.delete(socket));
        socket.on('error', () => {});
    });
    atEnd(t, () => {
        for (const socket of sockets) socket.destroy();
        return new Promise((done) => server.close(done));
    });
    return new Promise((done) => server.listen(0, '127.0.0.1', () => done(server.address().port)));
}

function join(a, b) {
    a.pipe(b).on('error', () => a.destroy());
    b.pipe(a).on('error', () => b.destroy());
    a.on('close', () => b.destroy());
    b.on('close', () => a.destroy());
}

/** {port, seen: ['host:port', …], authorizations: […]}; `names`: host -> address. */
export async function startHttpProxy(t, names = {}) {
    const proxy = { seen: [], authorizations: [] };
    const resolve = (host) => names[host] ?? host;
    const server = http.createServer((req, res) => {
        const url = new URL(req.url);
        proxy.seen.push(url.host);
        proxy.authorizations.push(req.headers['proxy-authorization'] ?? null);
        const headers = Object.fromEntries(Object.entries(req.headers).filter(([name]) => !name.startsWith('proxy-')));
        const upstream = http.request({ host: resolve(url.hostname), port: url.port || 80, method: req.method, path: url.pathname + url.search, headers, agent: false }, (answer) => {
            res.writeHead(answer.statusCode, answer.headers);
            answer.pipe(res);
        });
        upstream.on('error', () => res.destroy());
        res.on('close', () => upstream.destroy());
        req.pipe(upstream);
    });
    server.on('connect', (req, socket, rest) => {
        const [host, port] = req.url.split(':');
        proxy.seen.push(req.url);
        proxy.authorizations.push(req.headers['proxy-authorization'] ?? null);
        const upstream = net.connect(Number(port), resolve(host), () => {
            socket.write('HTTP/1.1 200 Connection established\r\n\r\n');
            upstream.write(rest);
            join(socket, upstream);
        });
        upstream.on('error', () => socket.destroy());
    });
    proxy.port = await track(t, server);
    return proxy;
}

/** {port, seen}: a SOCKS5 server without authentication; `seen` has names as they were asked for, or addresses. */
export async function startSocksProxy(t, names = {}) {
    const proxy = { seen: [] };
    const server = net.createServer((socket) => {
        let data = Buffer.alloc(0);
        let greeted = false;
        const onData = (piece) => {
            data = Buffer.concat([data, piece]);
            if (!greeted) {
                if (data.length < 2 || data.length < 2 + data[1]) return;
                data = data.subarray(2 + data[1]);
                greeted = true;
                socket.write(Buffer.from([5, 0]));
            }
            if (data.length < 5) return;
            const byName = data[3] === 3;
            const length = byName ? 1 + data[4] : 4;
            if (data.length < 4 + length + 2) return;
            const host = byName ? data.subarray(5, 4 + length).toString() : data.subarray(4, 8).join('.');
            const port = data.readUInt16BE(4 + length);
            const rest = data.subarray(4 + length + 2);
            socket.off('data', onData);
            proxy.seen.push(`${host}:${port}`);
            const upstream = net.connect(port, names[host] ?? host, () => {
                socket.write(Buffer.from([5, 0, 0, 1, 127, 0, 0, 1, 0, 0]));
                upstream.write(rest);
                join(socket, upstream);
            });
            upstream.on('error', () => socket.destroy());
        };
        socket.on('data', onData);
    });
    proxy.port = await track(t, server);
    return proxy;
}
