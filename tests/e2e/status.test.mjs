// chatmux status: finds the gateway, says what it finds, and its exit code is what a health check needs.
import assert from 'node:assert/strict';
import { execFileSync, spawn } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import http from 'node:http';
import https from 'node:https';
import { atEnd, binary, cleanEnv, freePort, makeDir, scenario, startGateway, toIni, until } from '../lib/gateway.mjs';

const SECRET = 'admin-secret-4711';
const DEMO = { 'provider demo': { type: 'demo' } };

/** Runs the command while this process goes on: servers of the tests live in it. */
function status(args = [], { config, env = {}, dir = makeDir() } = {}) {
    if (config) {
        writeFileSync(`${dir}/status.ini`, typeof config === 'string' ? config : toIni(config));
        args = ['-c', `${dir}/status.ini`, ...args];
    }
    return new Promise((done) => {
        const child = spawn(binary, ['status', ...args], { cwd: dir, env: cleanEnv(dir, env), stdio: ['ignore', 'pipe', 'pipe'] });
        let out = '';
        for (const stream of [child.stdout, child.stderr]) stream.setEncoding('utf8').on('data', (text) => (out += text));
        child.once('close', (code) => done({ code, out }));
    });
}

/** A gateway of ours to be: answers come from `pages`, path -> [status, body]. */
async function startServer(t, pages, tls) {
    const seen = [];
    const serve = (req, res) => {
        seen.push({ path: req.url, authorization: req.headers.authorization, host: req.headers.host });
        const [code, body] = pages[req.url] ?? [404, '{}'];
        res.writeHead(code).end(body);
    };
    const server = tls ? https.createServer(tls, serve) : http.createServer(serve);
    await new Promise((done) => server.listen(0, '127.0.0.1', done));
    atEnd(t, () => {
        server.closeAllConnections();
        server.close();
    });
    return { seen, port: server.address().port };
}

function makeCertificate(name) {
    const dir = makeDir();
    const [key, cert] = [`${dir}/key.pem`, `${dir}/cert.pem`];
    execFileSync('openssl', ['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-days', '2', '-keyout', key, '-out', cert, '-subj', `/CN=${name}`], {
        stdio: 'ignore',
    });
    return { certFile: cert, keyFile: key, tls: { key: readFileSync(key), cert: readFileSync(cert) } };
}

scenario('a gateway that serves is found by its configuration, whatever it listens on', async (t) => {
    const socket = `${makeDir()}/gw.sock`;
    const listen = async (first) => {
        const gw = await startGateway(t, {
            config: (gw) => ({ ...DEMO, server: { listen: [first.replace('PORT', gw.port), ...(first.startsWith('unix') ? [`127.0.0.1:${gw.port}`] : [])] } }),
            readyTarget: (gw) => ({ host: first.startsWith('[') ? '::1' : '127.0.0.1', port: gw.port }),
        });
        const r = await status(['-c', gw.file]);
        assert.equal(r.code, 0, `${first}: ${r.out}`);
        assert.match(r.out, /^ready\n/);
        assert.match(r.out, /version +\d+\.\d+\.\d+/);
        return { gw, out: r.out };
    };
    for (const [first, address] of [
        ['127.0.0.1:PORT', (gw) => `http://127.0.0.1:${gw.port}`],
        ['0.0.0.0:PORT', (gw) => `http://127.0.0.1:${gw.port}`],
        ['[::1]:PORT', (gw) => `http://[::1]:${gw.port}`],
        [`unix:${socket}`, () => `unix:${socket}`],
    ]) {
        const { gw, out } = await listen(first);
        assert.ok(out.includes(`address        ${address(gw)}\n`), out);
    }
    const byUrl = await status([], { env: { CHATMUX_ADMIN_URL: `unix:${socket}` } });
    assert.equal(byUrl.code, 0, byUrl.out);
});

scenario('the environment names another gateway; --listen too', async (t) => {
    const gw = await startGateway(t, { config: DEMO });
    assert.equal((await status([], { env: { CHATMUX_ADMIN_URL: `${gw.url}/` } })).code, 0);
    assert.equal((await status(['--listen', `127.0.0.1:${gw.port}`])).code, 0);
    assert.equal((await status(['-c', '/nonesuch.ini'], { env: { CHATMUX_ADMIN_URL: gw.url } })).code, 0, 'then no file is needed');
});

scenario('what a gateway needs and its clients lack is no hindrance', async (t) => {
    const gw = await startGateway(t, { config: DEMO });
    const r = await status([], { config: `[server]\nlisten = 127.0.0.1:${gw.port}\n[provider up]\ntype = openai\ncredentials = \${NOT_SET_HERE}\nbase_uri = x\n` });
    assert.equal(r.code, 0, r.out);
});

scenario('nobody there: 3. Usage and configuration: 1', async () => {
    const port = await freePort();
    const gone = await status([], { config: { server: { listen: `127.0.0.1:${port}` } } });
    assert.equal(gone.code, 3, gone.out);
    assert.match(gone.out, /^not reachable\n[^]*Connection refused/);
    const noSocket = await status([], { env: { CHATMUX_ADMIN_URL: `unix:${makeDir()}/none.sock` } });
    assert.equal(noSocket.code, 3, noSocket.out);
    for (const [what, args, options, pattern] of [
        ['an argument', ['now'], {}, /takes no arguments/],
        ['a bad address', [], { env: { CHATMUX_ADMIN_URL: 'localhost:1' } }, /CHATMUX_ADMIN_URL must be/],
        ['no file', ['-c', '/nonesuch.ini'], {}, /nonesuch\.ini: there is no such file/],
        ['sockets of systemd only', [], { config: { auth: { keys: ['k'] }, server: { listen: 'systemd' } } }, /set CHATMUX_ADMIN_URL/],
        ['no certificate', [], { config: { server: { tls_cert: '/nonesuch.pem', tls_key: '/nonesuch.pem' } } }, /tls_cert: \/nonesuch\.pem cannot be read/],
    ]) {
        const r = await status(args, options);
        assert.equal(r.code, 1, `${what}: ${r.out}`);
        assert.match(r.out, pattern, what);
    }
});

scenario('one that answers and does not serve is not ready', async (t) => {
    const server = await startServer(t, { '/readyz': [503, 'draining\n'] });
    const r = await status([], { env: { CHATMUX_ADMIN_URL: `http://127.0.0.1:${server.port}` } });
    assert.equal(r.code, 3, r.out);
    assert.match(r.out, /^not ready: status 503, draining\n/);
});

scenario('one that never answers is given up', async (t) => {
    const server = http.createServer(() => {});
    await new Promise((done) => server.listen(0, '127.0.0.1', done));
    atEnd(t, () => server.closeAllConnections() ?? server.close());
    const begin = performance.now();
    const r = await status([], { env: { CHATMUX_ADMIN_URL: `http://127.0.0.1:${server.address().port}` } });
    assert.equal(r.code, 3, r.out);
    assert.match(r.out, /no answer within 5 s/);
    assert.ok(performance.now() - begin < 8000);
});

scenario('with the admin secret its figures are shown; nobody else sees the secret', async (t) => {
    const stats = { uptime_s: 93_784, streams_open: 3, state: 'fine\u001b[31m', healthy: true, memory: { rss: 1 }, loop_lag_ms: 0.25 };
    const server = await startServer(t, { '/readyz': [200, 'ready\n'], '/': [200, 'chatmux 9.8.7: a gateway\n'], '/admin/api/stats': [200, JSON.stringify(stats)] });
    const config = { server: { listen: `127.0.0.1:${server.port}` }, auth: { admin_secret: SECRET } };
    const r = await status([], { config });
    assert.equal(r.code, 0, r.out);
    assert.match(r.out, /version +9\.8\.7\n/);
    assert.match(r.out, /uptime +1 d 2 h\n/);
    assert.match(r.out, /streams_open +3\n/);
    assert.match(r.out, /state +fine\?\[31m\n/, 'no control characters on the terminal');
    assert.match(r.out, /healthy +yes\n/);
    assert.match(r.out, /loop_lag_ms +0\.25\n/);
    assert.doesNotMatch(r.out, /memory/);
    for (const { path, authorization } of server.seen)
        assert.equal(authorization, path.startsWith('/admin/api/') ? `Bearer ${SECRET}` : undefined, path);
    assert.ok(server.seen.some(({ path }) => path === '/admin/api/stats'));

    server.seen.length = 0;
    await status([], { config, env: { CHATMUX_ADMIN_SECRET: 'from-the-environment' } });
    assert.equal(server.seen.find(({ path }) => path === '/admin/api/stats').authorization, 'Bearer from-the-environment');

    server.seen.length = 0;
    assert.equal((await status([], { config, env: { CHATMUX_ADMIN_URL: `http://127.0.0.1:${server.port}` } })).code, 0);
    assert.ok(!server.seen.some(({ authorization }) => authorization), 'the secret of a file stays with the addresses of that file');
});

scenario('a refused admin secret is told, and is no failure', async (t) => {
    const server = await startServer(t, { '/readyz': [200, 'ready\n'], '/admin/api/stats': [401, '{"error":{}}'] });
    const r = await status([], { env: { CHATMUX_ADMIN_URL: `http://127.0.0.1:${server.port}`, CHATMUX_ADMIN_SECRET: SECRET } });
    assert.equal(r.code, 0, r.out);
    assert.match(r.out, /the admin secret was refused/);
    assert.match(r.out, /version +unknown/);
});

scenario('over TLS the configured certificate counts, for whatever name it was made; another one does not', async (t) => {
    const own = makeCertificate('chat.example.com');
    const other = makeCertificate('chat.example.com');
    const server = await startServer(t, { '/readyz': [200, 'ready\n'], '/': [200, 'chatmux 1.0.0: a gateway\n'] }, own.tls);
    const config = (c) => ({ server: { listen: `127.0.0.1:${server.port}`, tls_cert: c.certFile, tls_key: c.keyFile }, auth: { admin_secret: SECRET } });
    const fine = await status([], { config: config(own) });
    assert.equal(fine.code, 0, fine.out);
    assert.match(fine.out, new RegExp(`address +https://127\\.0\\.0\\.1:${server.port}\n`));
    assert.equal(server.seen.length, 3);

    server.seen.length = 0;
    const wrong = await status([], { config: config(other) });
    assert.equal(wrong.code, 3, wrong.out);
    assert.deepEqual(server.seen, [], 'nothing was said to it');
    const unchecked = await status([], { env: { CHATMUX_ADMIN_URL: `https://127.0.0.1:${server.port}` } });
    assert.equal(unchecked.code, 3, 'without a file the usual authorities have to vouch for it');
    assert.deepEqual(server.seen, []);
});

scenario('a gateway that stops is noticed', async (t) => {
    const gw = await startGateway(t, { config: DEMO });
    assert.equal((await status(['-c', gw.file])).code, 0);
    await gw.stop();
    await until(async () => (await status(['-c', gw.file])).code === 3, 'status to say so');
});
