// Server TLS: versions, the SDK, streams, certificates replaced while it runs, and what goes wrong at a TLS port.
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { spawn, spawnSync } from 'node:child_process';
import { copyFileSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { chat, CLIENT_KEY, makeDir, request, runCommand, sanitized, scenario, startGateway, toIni, until } from '../lib/gateway.mjs';
import { connect, connectTls, rawChat, rawRequest, readChatStream } from '../lib/raw.mjs';
import { play, providerFor, startFakeOpenai } from '../lib/fake_openai.mjs';

const tests = fileURLToPath(new URL('..', import.meta.url));
const DEMO = { 'provider demo': { type: 'demo' } };

function openssl(...args) {
    const r = spawnSync('openssl', args, { encoding: 'utf8' });
    assert.equal(r.status, 0, `openssl ${args.join(' ')}: ${r.error ?? r.stderr}`);
}

/** Files of a certificate that signs itself, valid for 127.0.0.1: {cert, key, ca (its text)}. */
function makeCert(dir, name) {
    const cert = join(dir, `${name}.crt`);
    const key = join(dir, `${name}.key`);
    openssl('req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-days', '2', '-keyout', key, '-out', cert, '-subj', `/CN=${name}`, '-addext', 'subjectAltName=IP:127.0.0.1');
    return { cert, key, ca: readFileSync(cert, 'utf8') };
}

/** A gateway with TLS on its port; readiness is asked for on a unix socket, which stays plain. */
async function startSecure(t, { server = {}, files = makeCert(makeDir(), 'first'), ...config } = DEMO) {
    const tls = (gw) => ({
        server: { listen: [`127.0.0.1:${gw.port}`, `unix:${join(gw.dir, 's')}`], tls_cert: files.cert, tls_key: files.key, ...server },
        ...config,
    });
    const gw = await startGateway(t, { config: tls, readyTarget: (gw) => ({ socketPath: join(gw.dir, 's') }) });
    return { gw, files };
}

for (const version of ['TLSv1.2', 'TLSv1.3'])
    scenario(`${version}: keep-alive, a large body both ways, a proper end`, async (t) => {
        const { gw, files } = await startSecure(t);
        const raw = await connectTls(t, gw, { ca: files.ca, minVersion: version, maxVersion: version });
        assert.equal(raw.socket.getProtocol(), version);
        assert.equal(raw.socket.alpnProtocol, 'http/1.1');
        assert.match(raw.socket.getCipher().standardName, /GCM|CHACHA20/);
        const text = 'ü word '.repeat(120_000); // 960 KB
        raw.send(rawChat(chat('demo', text)));
        const large = await raw.response();
        assert.equal(large.status, 200);
        assert.equal(JSON.parse(large.text).choices[0].message.content, text);
        raw.send(rawRequest('GET', '/v1/models').repeat(20));
        for (let i = 0; i < 20; i++) assert.equal((await raw.response()).status, 200);
        raw.send(rawRequest('GET', '/healthz', { headers: ['Connection: close'] }));
        assert.equal((await raw.response()).status, 200);
        assert.equal(await raw.closed, 'end');
        assert.match(gw.output, new RegExp(`listening on https://127\\.0\\.0\\.1:${gw.port}/v1`));
        assert.match(gw.output, /listening on unix:/);
    });

scenario('TLS 1.1 and clients that offer only h2 are refused', async (t) => {
    const { gw, files } = await startSecure(t);
    await assert.rejects(connectTls(t, gw, { ca: files.ca, minVersion: 'TLSv1.1', maxVersion: 'TLSv1.1', ciphers: 'DEFAULT@SECLEVEL=0' }), /protocol version|unsupported protocol/i);
    await assert.rejects(connectTls(t, gw, { ca: files.ca, ALPNProtocols: ['h2'] }), /no application protocol/i);
    assert.equal((await (await secure(t, gw, files)).response()).status, 200);
});

async function secure(t, gw, files, send = rawRequest('GET', '/healthz')) {
    const raw = await connectTls(t, gw, { ca: files.ca });
    raw.send(send);
    return raw;
}

scenario('the SDK over https, with the certificate as its authority', async (t) => {
    const { gw, files } = await startSecure(t);
    const script = `
        import OpenAI from 'openai';
        const client = new OpenAI({ baseURL: 'https://127.0.0.1:${gw.port}/v1', apiKey: '${CLIENT_KEY}', maxRetries: 0 });
        const messages = [{ role: 'user', content: 'Hello 世界' }];
        const whole = await client.chat.completions.create({ model: 'demo', messages });
        let text = '';
        for await (const chunk of await client.chat.completions.create({ model: 'demo', messages, stream: true })) text += chunk.choices[0]?.delta.content ?? '';
        console.log(JSON.stringify([whole.choices[0].message.content, text]));`;
    const child = spawn(process.execPath, ['--input-type=module', '-e', script], { cwd: tests, env: { ...process.env, NODE_EXTRA_CA_CERTS: files.cert }, stdio: ['ignore', 'pipe', 'inherit'] });
    let out = '';
    child.stdout.on('data', (piece) => (out += piece));
    await new Promise((done) => child.once('close', done));
    assert.deepEqual(JSON.parse(out), ['Hello 世界', 'Hello 世界']);
});

scenario('delta n+1 is sent only after the client confirmed delta n, over TLS', async (t) => {
    const fake = await startFakeOpenai(t);
    const { gw, files } = await startSecure(t, { 'provider up': providerFor(fake) });
    const pieces = ['one ', 'two ', 'drei ü ', 'four'];
    const behave = play.lockstep(pieces);
    fake.always(behave);
    const raw = await secure(t, gw, files, rawChat(chat('m1', 'x', { stream: true })));
    assert.equal((await raw.head()).status, 200);
    let text = '';
    const seen = [];
    for (let i = 0; i < pieces.length; ) {
        const chunk = await raw.chunk();
        seen.push(chunk);
        const got = readChatStream(chunk).text;
        if (!got) continue;
        assert.equal(got, pieces[i++]);
        text += got;
        behave.confirm();
    }
    const { bytes, clean } = await raw.drainStream();
    assert.ok(clean);
    assert.ok(readChatStream(Buffer.concat([...seen, bytes])).done);
    assert.equal(text, pieces.join(''));
});

scenario('SIGHUP: new connections see the new certificate, an old stream goes on', async (t) => {
    const dir = makeDir();
    const first = makeCert(dir, 'first');
    const second = makeCert(dir, 'second');
    const files = { cert: join(dir, 'live.crt'), key: join(dir, 'live.key') };
    const install = (from) => {
        for (const kind of ['cert', 'key']) {
            copyFileSync(from[kind], `${files[kind]}.new`);
            renameSync(`${files[kind]}.new`, files[kind]);
        }
    };
    install(first);
    const fake = await startFakeOpenai(t);
    const { gw } = await startSecure(t, { files, 'provider up': providerFor(fake) });
    const behave = play.lockstep(['one ', 'two ', 'three']);
    fake.always(behave);
    const old = await connectTls(t, gw, { ca: first.ca });
    old.send(rawChat(chat('m1', 'x', { stream: true })));
    await old.head();

    const reloads = () => gw.output.split('configuration reloaded').length - 1;
    install(second);
    gw.signal('SIGHUP');
    await until(() => reloads() === 1, 'the reload');
    const fresh = await connectTls(t, gw, { ca: second.ca });
    assert.equal(fresh.socket.getPeerCertificate().subject.CN, 'second');
    fresh.send(rawRequest('GET', '/healthz'));
    assert.equal((await fresh.response()).status, 200);
    await assert.rejects(connectTls(t, gw, { ca: first.ca }));

    writeFileSync(files.key, readFileSync(first.key)); // does not belong to the second certificate
    const before = gw.output.length;
    gw.signal('SIGHUP');
    await until(() => gw.output.slice(before).includes('reload refused'), 'the refusal');
    assert.match(gw.output.slice(before), /live\.key is not the key of the certificate in .*live\.crt/);
    assert.equal((await connectTls(t, gw, { ca: second.ca })).socket.getPeerCertificate().subject.CN, 'second');

    for (let i = 0; i < 3; i++) behave.confirm();
    const { bytes, clean } = await old.drainStream();
    assert.ok(clean);
    assert.equal(readChatStream(bytes).text, 'one two three');
});

scenario('plain HTTP on a TLS port gets a sentence', async (t) => {
    const { gw } = await startSecure(t);
    for (const [size, piece] of [
        [100, 1],
        [100, 1000],
        [5_000_000, 5_100_000], // it has not read the answer yet when it is told
    ]) {
        const raw = await connect(t, gw);
        await raw.sendPieces(rawChat(chat('demo', 'x'.repeat(size))), piece);
        const answer = await raw.response();
        assert.equal(answer.status, 400);
        assert.equal(answer.headers.connection, 'close');
        assert.equal(answer.headers['content-type'], 'text/plain');
        assert.match(answer.text, /^This port speaks https/);
        assert.equal(await raw.closed, 'end');
    }
    assert.equal(gw.accessLines().length, 0);
    const plain = await request(gw, { path: '/healthz', socketPath: join(gw.dir, 's') });
    assert.equal(plain.status, 200, 'the unix socket stays plain');
});

scenario('a handshake that does not come, or comes as garbage, is dropped in time', async (t) => {
    const { gw, files } = await startSecure(t, { server: { header_timeout: '300ms' }, ...DEMO });
    const silent = await connect(t, gw);
    const began = performance.now();
    const half = await connect(t, gw);
    half.send(Buffer.from([22, 3, 1, 2, 0, 1]));
    const garbage = await connect(t, gw);
    garbage.send(Buffer.from([22, 3, 1, 0, 4, 99, 0, 0, 0]));
    await garbage.closed;
    assert.ok(performance.now() - began < 250, 'garbage is not waited for');
    await silent.closed;
    await half.closed;
    const took = performance.now() - began;
    assert.ok(took > 250 && took < 3000, `${took} ms`);
    const idle = await secure(t, gw, files); // one that has greeted may be silent for longer
    assert.equal((await idle.response()).status, 200);
    await sleep(700);
    idle.send(rawRequest('GET', '/healthz'));
    assert.equal((await idle.response()).status, 200);
});

for (const leave of ['close', 'endWriting'])
    scenario(`the client leaves (${leave}): its upstream call is closed`, async (t) => {
        const fake = await startFakeOpenai(t);
        const { gw, files } = await startSecure(t, { 'provider up': providerFor(fake) });
        fake.always(play.hangAfter(['one ']));
        const raw = await secure(t, gw, files, rawChat(chat('m1', 'x', { stream: true })));
        await raw.head();
        await raw.chunk();
        const left = performance.now();
        raw[leave]();
        await until(() => fake.last.isGone, 'the upstream connection to be closed', 1500);
        assert.ok(fake.last.goneAt - left <= 1000);
    });

scenario('clients that do not read hold their upstreams back', { skip: sanitized && 'memory is not ours to measure' }, async (t) => {
    const fake = await startFakeOpenai(t);
    const { gw, files } = await startSecure(t, { 'provider up': providerFor(fake) });
    fake.always(play.big({ bytes: 10_000_000 }));
    const warm = await secure(t, gw, files);
    await warm.response();
    const before = gw.rssBytes();
    const clients = [];
    for (let i = 0; i < 40; i++) {
        const raw = await secure(t, gw, files, rawChat(chat('m1', 'x', { stream: true })));
        raw.stopReading();
        clients.push(raw);
    }
    await sleep(1500);
    const grown = gw.rssBytes() - before;
    assert.ok(grown < 40 * 256 * 1024 * 1.1 + 4_000_000, `${Math.round(grown / 40 / 1024)} KiB for each client`);
    clients[7].readOn();
    assert.equal((await clients[7].head()).status, 200);
    const { bytes, clean } = await clients[7].drainStream();
    assert.ok(clean);
    assert.equal(readChatStream(bytes).text.length, 10_000_000);
});

scenario('idle connections are small', { skip: sanitized && 'memory is not ours to measure' }, async (t) => {
    const { gw, files } = await startSecure(t);
    const open = async () => {
        const raw = await secure(t, gw, files);
        assert.equal((await raw.response()).status, 200);
    };
    for (let i = 0; i < 50; i++) await open();
    const before = gw.rssBytes();
    for (let i = 0; i < 400; i++) await open();
    const each = (gw.rssBytes() - before) / 400;
    // Measured: 15 KiB with OpenSSL 3.0, and 30 when it keeps its buffers; 29 with 3.5, which takes more for itself.
    const [, minor] = /^OpenSSL 3\.(\d+)/.exec(execFileSync('openssl', ['version'], { encoding: 'utf8' })) ?? [];
    const limit = Number(minor) === 0 ? 24 : 36;
    assert.ok(each < limit * 1024, `${Math.round(each / 1024)} KiB for each idle connection`);
});

scenario('wrong files: check and serve name file, line and reason', async (t) => {
    const dir = makeDir();
    const good = makeCert(dir, 'good');
    const other = makeCert(dir, 'other');
    const text = join(dir, 'text');
    const locked = join(dir, 'locked.key');
    writeFileSync(text, 'good morning\n');
    openssl('pkey', '-in', good.key, '-aes256', '-passout', 'pass:secret', '-out', locked);
    for (const [cert, key, line, says] of [
        [join(dir, 'missing'), good.key, 3, /server\.tls_cert: cannot read .*missing: No such file or directory/],
        [good.cert, join(dir, 'missing'), 4, /server\.tls_key: cannot read .*missing: No such file or directory/],
        [text, good.key, 3, /server\.tls_cert: .*text holds no certificate in PEM form/],
        [good.cert, text, 4, /server\.tls_key: .*text holds no private key in PEM form/],
        [good.cert, other.key, 4, /server\.tls_key: .*other\.key is not the key of the certificate in .*good\.crt/],
        [good.cert, locked, 4, /server\.tls_key: .*locked\.key is encrypted/],
    ]) {
        const file = join(dir, 'chatmux.ini');
        writeFileSync(file, toIni({ server: { listen: '127.0.0.1:1', tls_cert: cert, tls_key: key }, ...DEMO }));
        for (const command of ['check', 'serve']) {
            const r = runCommand([command, '-c', file], { dir });
            assert.equal(r.code, 1, `${command}: ${r.out}`);
            assert.match(r.stderr, says);
            assert.match(r.stderr, new RegExp(`^${file}:${line}: `, 'm'));
        }
    }
    const file = join(dir, 'chatmux.ini');
    writeFileSync(file, toIni({ server: { tls_cert: good.cert, tls_key: good.key }, ...DEMO }));
    assert.equal(runCommand(['check', '-c', file], { dir }).code, 0);
});
