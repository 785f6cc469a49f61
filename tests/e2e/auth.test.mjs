// Who may ask, under which names the routes answer, and what an open gateway protects itself from.
import assert from 'node:assert/strict';
import { chat, CLIENT_KEY, freePort, request, runCommand, scenario, startGateway, toIni, makeDir, until } from '../lib/gateway.mjs';
import { connect, rawRequest } from '../lib/raw.mjs';
import { writeFileSync } from 'node:fs';

const DEMO = { 'provider demo': { type: 'demo' } };
const SECOND = 'sk-second-key-0815';

scenario('the key in every place where clients put it', async (t) => {
    const gw = await startGateway(t, { config: { ...DEMO, auth: { keys: [CLIENT_KEY, SECOND] } } });
    for (const key of [CLIENT_KEY, SECOND])
        for (const [headers, query] of [
            [{ authorization: `Bearer ${key}` }],
            [{ authorization: `bearer ${key}` }],
            [{ authorization: key }],
            [{ 'x-api-key': key }],
            [{ 'x-goog-api-key': key }],
            [{}, `?key=${key}`],
            [{}, `?alt=sse&key=${key}&x=1`],
            [{}, `?key=${key.replace('-', '%2D')}`],
        ]) {
            const answer = await request(gw, { path: `/v1/chat/completions${query ?? ''}`, body: chat('demo'), key: null, headers });
            assert.equal(answer.status, 200, `${JSON.stringify(headers)} ${query}: ${answer.text}`);
        }
    for (const [headers, query] of [
        [{ authorization: `Bearer ${CLIENT_KEY}x` }],
        [{ authorization: `Bearer ${CLIENT_KEY.slice(0, -1)}` }],
        [{ authorization: `Bearer ${CLIENT_KEY.toUpperCase()}` }],
        [{ authorization: `Basic ${CLIENT_KEY}` }],
        [{ authorization: 'Bearer' }],
        [{ authorization: 'Bearer ' }],
        [{ 'x-api-key': '' }],
        [{}, '?key='],
        [{}, `?xkey=${CLIENT_KEY}`],
        [{ cookie: `key=${CLIENT_KEY}` }],
    ]) {
        const answer = await request(gw, { path: `/v1/chat/completions${query ?? ''}`, body: chat('demo'), key: null, headers });
        assert.equal(answer.status, 401, `${JSON.stringify(headers)} ${query}: ${answer.text}`);
    }
    await until(() => gw.accessLines().length > 0, 'the access lines');
    assert.ok(!gw.output.includes(CLIENT_KEY) && !gw.output.includes(SECOND), 'a key in the log');
    assert.ok(!gw.output.includes(CLIENT_KEY.replace('-', '%2D')), 'an escaped key in the log');
});

scenario('health, readiness and the front page need no key', async (t) => {
    const gw = await startGateway(t, { config: DEMO });
    for (const path of ['/healthz', '/readyz', '/']) assert.equal((await request(gw, { path, key: null })).status, 200, path);
});

scenario('too many wrong keys from one address', async (t) => {
    const gw = await startGateway(t, { config: { ...DEMO, auth: { ip_bad_auth_per_minute: 5 } } });
    const statuses = [];
    for (let i = 0; i < 8; i++) statuses.push((await request(gw, { body: chat('demo'), key: `sk-guess-${i}` })).status);
    assert.deepEqual(statuses, [401, 401, 401, 401, 401, 429, 429, 429]);
});

scenario('an address behind a trusted proxy has limits of its own; anybody else cannot claim one', async (t) => {
    const from = async (gw, address) => {
        const raw = await connect(t, gw);
        raw.send(rawRequest('GET', '/v1/models', { headers: [`X-Forwarded-For: ${address}`] }));
        return (await raw.response()).status;
    };
    const behind = await startGateway(t, { config: { ...DEMO, server: { trusted_proxies: '127.0.0.0/8' }, auth: { ip_requests_per_minute: 2 } } });
    for (const client of ['192.0.2.1', '192.0.2.2']) assert.deepEqual([await from(behind, client), await from(behind, client), await from(behind, client)], [200, 200, 429], client);
    assert.equal(await from(behind, '203.0.113.9, 192.0.2.1'), 429, 'what the client wrote in front of the proxy counts for nothing');

    const bare = await startGateway(t, { config: { ...DEMO, auth: { ip_requests_per_minute: 2 } } });
    assert.deepEqual([await from(bare, '192.0.2.1'), await from(bare, '192.0.2.2'), await from(bare, '192.0.2.3')], [200, 200, 429]);
});

scenario('routes with and without /v1, doubled slashes, doubled /v1, under a prefix', async (t) => {
    const gw = await startGateway(t, { config: { ...DEMO, server: { route_prefix: 'hf' } } });
    for (const path of ['/v1/chat/completions', '/chat/completions', '//v1/chat/completions', '/v1//chat/completions', '/v1/v1/chat/completions', '/hf/v1/chat/completions', '/hf/chat/completions', '//hf//v1/chat/completions']) {
        const answer = await request(gw, { path, body: chat('demo', path) });
        assert.equal(answer.status, 200, `${path}: ${answer.text}`);
        assert.equal(answer.json.choices[0].message.content, path);
    }
    for (const path of ['/v1/models', '/models', '/hf/v1/models', '/v1/models?limit=1000']) assert.equal((await request(gw, { path })).json.object, 'list', path);
    assert.equal((await request(gw, { path: '/v1/models/demo%2Fdemo' })).status, 200, 'an escaped slash in a model id');
    assert.equal((await request(gw, { path: '/hf/healthz' })).status, 200);
    for (const path of ['/hfx/v1/models', '/v1/hf/models', '/v1/../v1/models', '/v1/%2e%2e/models', '/v1/models/%00']) assert.ok([400, 404].includes((await request(gw, { path })).status), path);
});

scenario('open: a gateway without keys serves this machine only', async (t) => {
    const gw = await startGateway(t, { config: { ...DEMO, auth: { keys: null } } });
    assert.equal((await request(gw, { body: chat('demo'), key: null })).status, 200);
    assert.equal((await request(gw, { body: chat('demo'), key: 'whatever' })).status, 200);
    for (const host of ['localhost', `localhost:${gw.port}`, '127.0.0.1', `127.0.0.1:${gw.port}`, '[::1]', `[::1]:${gw.port}`]) {
        const raw = await connect(t, gw);
        raw.send(rawRequest('GET', '/v1/models', { host, key: null }));
        assert.equal((await raw.response()).status, 200, host);
    }
    for (const [host, headers] of [
        ['evil.example', []],
        [`evil.example:${gw.port}`, []],
        ['localhost.evil.example', []],
        ['127.0.0.1.evil.example', []],
        ['localhost', ['Origin: https://evil.example']],
        ['localhost', ['Origin: null']],
    ]) {
        const raw = await connect(t, gw);
        raw.send(rawRequest('GET', '/v1/models', { host, key: null, headers }));
        const answer = await raw.response();
        assert.ok(answer.status >= 400 && answer.status < 500, `${host} ${headers}: ${answer.status}`);
        assert.ok(!answer.text.includes('demo-tool'));
    }
});

scenario('without a key and not open, no other listener starts', async () => {
    const dir = makeDir();
    const port = await freePort();
    const config = { server: { listen: `0.0.0.0:${port}` }, store: { state_dir: `${dir}/state` }, ...DEMO };
    writeFileSync(`${dir}/c.ini`, toIni(config));
    const refused = runCommand(['serve', '-c', `${dir}/c.ini`], { dir, timeout: 5000 });
    assert.equal(refused.code, 1, refused.out);
    assert.match(refused.out, /key|open/);
});
