// Two accounts at one host share nothing: connections, TLS sessions, proxies, cookies, browsers; after reuse, too.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import net from 'node:net';
import { join } from 'node:path';
import { setTimeout } from 'node:timers/promises';
import tls from 'node:tls';
import { atEnd, chat, CLIENT_KEY, makeDir, request, scenario, startGateway, until } from '../lib/gateway.mjs';
import { session, startFakeGenspark } from '../lib/fake_genspark.mjs';
import { startHttpProxy } from '../lib/fake_proxy.mjs';

const SECRET = 'adm-secret-0815-4711';
const NAMES = [1, 2, 3].map(session);

function selfSigned() {
    const dir = makeDir();
    const [key, cert] = [join(dir, 'key'), join(dir, 'cert')];
    const made = spawnSync('openssl', ['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-days', '2', '-keyout', key, '-out', cert, '-subj', '/CN=site', '-addext', 'subjectAltName=IP:127.0.0.1'], { encoding: 'utf8' });
    assert.equal(made.status, 0, made.stderr);
    return { key: readFileSync(key), cert: readFileSync(cert), ca: cert };
}

/** TLS in front of a plain server: what each connection carried. `closeAfter` bytes of answers it is closed, so that another handshake follows. */
async function startTls(t, port, files) {
    const front = { connections: [] };
    const sockets = new Set();
    const server = tls.createServer(files, (socket) => {
        const seen = { resumed: socket.isSessionReused(), sessions: new Set(), agents: new Set(), socket };
        front.connections.push(seen);
        const upstream = net.connect(port, '127.0.0.1');
        for (const s of [socket, upstream]) {
            sockets.add(s);
            s.on('error', () => {});
        }
        socket.on('data', (bytes) => {
            const text = bytes.toString('latin1');
            for (const m of text.matchAll(/session_id=([0-9a-f-]{36})/g)) seen.sessions.add(m[1]);
            for (const m of text.matchAll(/\r\nuser-agent: ([^\r]+)/gi)) seen.agents.add(m[1]);
        });
        socket.pipe(upstream).pipe(socket);
        socket.on('close', () => upstream.destroy());
        upstream.on('close', () => socket.destroy());
    });
    await new Promise((done) => server.listen(0, '127.0.0.1', done));
    front.url = `https://127.0.0.1:${server.address().port}`;
    front.hangUp = () => front.connections.forEach(({ socket }) => socket.destroy());
    atEnd(t, () => {
        for (const s of sockets) s.destroy();
        return new Promise((done) => server.close(done));
    });
    return front;
}

const ask = (gw, n) => Promise.all(Array.from({ length: n }, (_, i) => request(gw, { body: chat('gpt-5.2', `question ${i}`) })));

scenario('connections, TLS sessions, cookies and browsers', async (t) => {
    const fake = await startFakeGenspark(t, { sessions: NAMES });
    const files = selfSigned();
    const front = await startTls(t, fake.port, files);
    fake.host = new URL(front.url).host;
    const gw = await startGateway(t, {
        config: { auth: { keys: [CLIENT_KEY] }, 'provider genspark': { type: 'genspark', base_url: front.url, ca_file: files.ca, credentials: NAMES, 'x.delete_chat': 'yes' } },
    });
    for (let round = 0; round < 3; round++) {
        for (const answer of await ask(gw, 6)) assert.equal(answer.status, 200, answer.text);
        await until(() => fake.undeleted().length === 0, 'the chats to be deleted');
        await setTimeout(200); // what the platform has done it has told, too
        if (round === 1) front.hangUp(); // new handshakes: a session may be resumed, but only by who had it
    }
    const agents = new Map();
    for (const c of front.connections) {
        assert.ok(c.sessions.size <= 1, 'two accounts on one connection');
        assert.ok(c.agents.size <= 1, 'two browsers on one connection');
        const [name] = c.sessions;
        if (name === undefined) continue;
        assert.ok(!c.resumed || agents.has(name), 'the first connection of an account resumes a TLS session, which is another’s');
        agents.set(name, (agents.get(name) ?? new Set()).add([...c.agents][0]));
    }
    t.diagnostic(`${front.connections.length} connections, ${front.connections.filter((c) => c.resumed).length} resumed`);
    assert.equal(agents.size, 3);
    for (const set of agents.values()) assert.equal(set.size, 1, 'an account with two browsers');
});

scenario('each account goes out through its own proxy', async (t) => {
    const fake = await startFakeGenspark(t, { sessions: NAMES });
    const proxies = await Promise.all([startHttpProxy(t), startHttpProxy(t)]);
    const gw = await startGateway(t, {
        config: { auth: { keys: [CLIENT_KEY], admin_secret: SECRET }, 'provider genspark': { type: 'genspark', base_url: fake.base, credentials: NAMES } },
    });
    const list = (await request(gw, { path: '/admin/api/credentials', method: 'GET', key: SECRET })).json.data;
    for (const [i, proxy] of proxies.entries()) {
        const changed = await request(gw, { path: `/admin/api/credentials/${list[i].id}`, method: 'PATCH', key: SECRET, body: { proxy: `http://127.0.0.1:${proxy.port}` } });
        assert.equal(changed.status, 200, changed.text);
    }
    for (let round = 0; round < 3; round++) for (const answer of await ask(gw, 6)) assert.equal(answer.status, 200, answer.text);
    const of = (name) => fake.asks.filter((rec) => rec.session === name).length;
    assert.ok(NAMES.every((name) => of(name) > 0));
    // what a proxy saw is what its account asked, no more and no less
    for (const [i, proxy] of proxies.entries()) assert.equal(proxy.seen.length, fake.requests.filter((rec) => rec.headers.cookie?.includes(NAMES[i])).length, `proxy ${i}`);
});
