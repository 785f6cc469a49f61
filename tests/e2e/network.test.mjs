// The way to the upstream: names are resolved without stopping the loop, a proxy is used when it is configured and only
// then, whatever the environment says.
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { setTimeout as sleep } from 'node:timers/promises';
import { chat, freePort, makeDir, request, sanitized, scenario, startGateway, until } from '../lib/gateway.mjs';
import { connect, rawChat } from '../lib/raw.mjs';
import { play, providerFor, startFakeOpenai } from '../lib/fake_openai.mjs';
import { startHttpProxy, startSocksProxy } from '../lib/fake_proxy.mjs';

const NO_RETRY = { retry: { retries: 0 } };
const DEMO = { 'provider demo': { type: 'demo' } };
const skip = sanitized && 'a sanitizer build does not bear LD_PRELOAD';

let library;
function resolverShim() {
    if (!library) {
        library = `${makeDir()}/slow_resolver.so`;
        const source = fileURLToPath(new URL('../lib/slow_resolver.c', import.meta.url));
        execFileSync(process.env.CC ?? 'cc', ['-std=gnu17', '-Wall', '-Wextra', '-O1', '-shared', '-fPIC', '-o', library, source, '-ldl']);
    }
    const log = `${makeDir()}/lookups`;
    return {
        env: { LD_PRELOAD: library, SLOW_RESOLVER_LOG: log },
        lookups: () => (existsSync(log) ? readFileSync(log, 'utf8').split('\n').filter(Boolean) : []),
    };
}

/** The fake under a name that only the shim knows. */
function named(fake, name, more = {}) {
    fakeHost(fake, name);
    return providerFor(fake, { base_url: `http://${name}:${fake.port}/v1`, ...more });
}

/** Lets the fake expect this name in Host. */
function fakeHost(fake, name) {
    Object.defineProperty(fake, 'host', { get: () => `${name}:${fake.port}` });
}

scenario('a name is resolved once, not once per request', { skip }, async (t) => {
    const fake = await startFakeOpenai(t);
    const shim = resolverShim();
    const gw = await startGateway(t, { env: shim.env, config: { 'provider up': named(fake, 'up.fake.test') } });
    await Promise.all(Array.from({ length: 10 }, () => request(gw, { body: chat('m1') })));
    for (let i = 0; i < 5; i++) assert.equal((await request(gw, { body: chat('m1') })).status, 200);
    const asked = shim.lookups().filter((name) => name === 'up.fake.test');
    assert.equal(asked.length, 1, `${asked.length} lookups`);
});

scenario('a resolver that hangs does not stop the loop', { skip, timeout: 30_000 }, async (t) => {
    const fake = await startFakeOpenai(t);
    const shim = resolverShim();
    const gw = await startGateway(t, { env: shim.env, config: { ...DEMO, ...NO_RETRY, 'provider up': named(fake, 'up.hang.test') } });
    const stuck = await connect(t, gw);
    stuck.send(rawChat(chat('m1')));
    await until(() => shim.lookups().length > 0, 'the lookup to begin');
    const quick = async (what) => {
        const begin = performance.now();
        assert.equal((await request(gw, { body: chat('demo') })).status, 200);
        const took = performance.now() - begin;
        assert.ok(took < 200, `the demo took ${took} ms ${what}`);
    };
    for (let i = 0; i < 5; i++) await quick('during the lookup');
    const leaving = await connect(t, gw);
    leaving.send(rawChat(chat('m1', 'x', { stream: true })));
    await sleep(100);
    leaving.reset();
    for (let i = 0; i < 5; i++) await quick('after a client left during the lookup');
    const lines = await until(() => gw.accessLines().filter((line) => line.model === 'm1').length > 0 && gw.accessLines(), 'the exchange of the client that left to be settled', 1500);
    assert.ok(lines.length > 0);
    const answer = await stuck.response();
    assert.equal(answer.status, 200, 'the lookup came back and the request went on');
    await sleep(100);
    assert.equal(fake.requests.length, 1, 'the request of the client that left went upstream');
});

scenario('a lookup counts against connect_timeout, and a name that does not exist says so', { skip }, async (t) => {
    const fake = await startFakeOpenai(t);
    const shim = resolverShim();
    const gw = await startGateway(t, {
        env: { ...shim.env, SLOW_RESOLVER_MS: '3000' },
        config: {
            ...NO_RETRY,
            'provider slow': providerFor(fake, { base_url: `http://up.hang.test:${fake.port}/v1`, models: ['slow'], connect_timeout: '500ms', credentials: ['sk-up-1'] }),
            'provider none': providerFor(fake, { base_url: `http://up.none.test:${fake.port}/v1`, models: ['none'], credentials: ['sk-up-1'] }),
        },
    });
    const begin = performance.now();
    const slow = await request(gw, { body: chat('slow') });
    assert.ok(slow.status >= 502 && slow.status <= 504, `${slow.status} ${slow.text}`);
    assert.ok(performance.now() - begin < 2000, `${performance.now() - begin} ms`);
    const none = await request(gw, { body: chat('none') });
    assert.equal(none.status, 502, none.text);
    await gw.waitLog(/up\.none\.test/, 'which name there is no address for');
    assert.equal(fake.requests.length, 0);
});

scenario('drain does not wait for a lookup for ever', { skip }, async (t) => {
    const fake = await startFakeOpenai(t);
    const shim = resolverShim();
    const gw = await startGateway(t, { env: { ...shim.env, SLOW_RESOLVER_MS: '2500' }, config: { ...DEMO, ...NO_RETRY, 'provider up': named(fake, 'up.hang.test') } });
    const raw = await connect(t, gw);
    raw.send(rawChat(chat('m1')));
    await until(() => shim.lookups().length > 0, 'the lookup to begin');
    raw.close();
    await sleep(50);
    gw.signal('SIGTERM');
    assert.deepEqual(await gw.waitExit(5000), { code: 0, signal: null });
});

scenario('connect_timeout', async (t) => {
    // An address that swallows packets: 192.0.2.0/24 is reserved for documentation. Where the network refuses it at once
    // the test shows the refusal instead.
    const gw = await startGateway(t, {
        config: { ...NO_RETRY, 'provider up': { type: 'openai', base_url: 'http://192.0.2.1:81/v1', credentials: ['k'], models: ['m1'], connect_timeout: '700ms' } },
    });
    const begin = performance.now();
    const answer = await request(gw, { body: chat('m1') });
    assert.ok([502, 504].includes(answer.status), answer.text);
    assert.ok(performance.now() - begin < 3000);
});

scenario('proxies in the environment change nothing', async (t) => {
    const fake = await startFakeOpenai(t);
    const trap = await startHttpProxy(t);
    const url = `http://127.0.0.1:${trap.port}`;
    const gw = await startGateway(t, {
        config: { 'provider up': providerFor(fake) },
        env: { http_proxy: url, HTTP_PROXY: url, https_proxy: url, HTTPS_PROXY: url, all_proxy: url, ALL_PROXY: url },
    });
    for (let i = 0; i < 3; i++) assert.equal((await request(gw, { body: chat('m1') })).status, 200);
    assert.equal(fake.requests.length, 3);
    assert.deepEqual(trap.seen, []);
});

scenario('a configured proxy is used for everything, NO_PROXY or not', async (t) => {
    const fake = await startFakeOpenai(t);
    fakeHost(fake, 'only.the.proxy.knows');
    const proxy = await startHttpProxy(t, { 'only.the.proxy.knows': '127.0.0.1' });
    const gw = await startGateway(t, {
        config: {
            upstream: { proxy: `http://ann:secret-of-ann@127.0.0.1:${proxy.port}` },
            'provider up': providerFor(fake, { base_url: `http://only.the.proxy.knows:${fake.port}/v1` }),
        },
        env: { NO_PROXY: '*', no_proxy: '*' },
    });
    for (const stream of [false, true]) {
        const answer = await request(gw, { body: chat('m1', 'x', { stream }) });
        assert.equal(answer.status, 200, answer.text);
    }
    assert.equal(fake.requests.length, 2);
    assert.ok(proxy.seen.length >= 1);
    assert.ok(proxy.seen.every((host) => host === `only.the.proxy.knows:${fake.port}`));
    assert.equal(proxy.authorizations[0], `Basic ${Buffer.from('ann:secret-of-ann').toString('base64')}`);
    assert.ok(!gw.output.includes('secret-of-ann'));
});

scenario('a proxy for loopback addresses, too', async (t) => {
    const fake = await startFakeOpenai(t);
    const proxy = await startHttpProxy(t);
    const gw = await startGateway(t, { config: { 'provider up': providerFor(fake, { proxy: `http://127.0.0.1:${proxy.port}` }) }, env: { NO_PROXY: '127.0.0.1,localhost' } });
    assert.equal((await request(gw, { body: chat('m1') })).status, 200);
    assert.deepEqual(proxy.seen, [fake.host]);
});

scenario('socks5h: the proxy resolves the name', async (t) => {
    const fake = await startFakeOpenai(t);
    fakeHost(fake, 'only.the.proxy.knows');
    const proxy = await startSocksProxy(t, { 'only.the.proxy.knows': '127.0.0.1' });
    const gw = await startGateway(t, {
        config: { 'provider up': providerFor(fake, { base_url: `http://only.the.proxy.knows:${fake.port}/v1`, proxy: `socks5h://127.0.0.1:${proxy.port}` }) },
    });
    assert.equal((await request(gw, { body: chat('m1') })).status, 200);
    assert.deepEqual(proxy.seen, [`only.the.proxy.knows:${fake.port}`]);
});

scenario('a proxy that is down is never gone around', async (t) => {
    const fake = await startFakeOpenai(t);
    const dead = await freePort();
    for (const scheme of ['http', 'socks5h']) {
        const gw = await startGateway(t, { config: { ...NO_RETRY, 'provider up': providerFor(fake, { proxy: `${scheme}://127.0.0.1:${dead}` }) } });
        const answer = await request(gw, { body: chat('m1') });
        assert.ok([502, 503, 504].includes(answer.status), `${scheme}: ${answer.text}`);
        assert.equal(fake.requests.length, 0, `${scheme}: the request went out directly`);
    }
});

scenario('redirects of an upstream are not followed', async (t) => {
    const fake = await startFakeOpenai(t, { keys: ['sk-up-1'] });
    const other = await startFakeOpenai(t, { keys: ['sk-up-1'] });
    const gw = await startGateway(t, { config: { ...NO_RETRY, 'provider up': providerFor(fake) } });
    fake.always(play.status(307, '', { location: `${other.base}/chat/completions` }));
    const answer = await request(gw, { body: chat('m1') });
    assert.equal(answer.status, 502, answer.text);
    assert.equal(answer.headers.location, undefined);
    assert.equal(other.requests.length, 0);
});
