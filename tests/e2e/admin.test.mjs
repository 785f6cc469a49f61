// The admin API: credentials and keys from birth to removal, figures, the log, reload, hixai2api's old routes, and what tells of the routes.
import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { play, providerFor, startFakeOpenai } from '../lib/fake_openai.mjs';
import { say, sessionToken, startFakeHix } from '../lib/fake_hix.mjs';
import { startHttpProxy } from '../lib/fake_proxy.mjs';
import { chat, CLIENT_KEY, request, scenario, startGateway, until } from '../lib/gateway.mjs';

const SECRET = 'adm-secret-0815-4711';
const AUTH = { auth: { keys: [CLIENT_KEY], admin_secret: SECRET } };

/** One request to the admin API: its answer, with the JSON in `json`. */
const admin = (gw, method, path, body, options = {}) => request(gw, { path: `/admin/api${path}`, method, body, key: SECRET, ...options });

async function ok(gw, method, path, body, status = 200) {
    const answer = await admin(gw, method, path, body);
    assert.equal(answer.status, status, `${method} ${path}: ${answer.status} ${answer.text}`);
    return answer.json;
}

async function refused(gw, method, path, body, status, param = null) {
    const answer = await admin(gw, method, path, body);
    assert.equal(answer.status, status, `${method} ${path} ${JSON.stringify(body)}: ${answer.text}`);
    assert.equal(answer.error.param, param, answer.text);
    assert.ok(answer.error.message.length > 0 && answer.error.type === 'invalid_request_error', answer.text);
    return answer.error;
}

const ask = (gw, model = 'm1', key = CLIENT_KEY) => request(gw, { body: chat(model), key });
const CREDENTIAL = 'created,enabled,failures,hint,id,inflight,label,last_used,max_inflight,models,month_requests,monthly_limit,provider,proxy,quota,reason,requests,source,state,tokens_in,tokens_out,until,weight';
const TIME = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/;

// ---- credentials ----------------------------------------------------------------------------------------------

scenario('a credential is added, used, changed, disabled, reset and removed', async (t) => {
    const secret = 'sk-up-added-by-hand-9876';
    const fake = await startFakeOpenai(t, { keys: [secret, 'sk-up-second-one-5432'] });
    const gw = await startGateway(t, { config: { ...AUTH, 'provider up': providerFor(fake, { credentials: null }) } });
    const made = await ok(gw, 'POST', '/credentials', { provider: 'up', secret: ` ${secret}\n`, label: 'mine', weight: 5, max_inflight: 3, proxy: null }, 201);
    assert.equal(Object.keys(made).sort().join(), CREDENTIAL);
    assert.match(made.created, TIME);
    const { id, created, ...rest } = made;
    assert.deepEqual(rest, {
        provider: 'up', label: 'mine', hint: '9876', source: 'api', enabled: true, state: 'ok', reason: null, until: null, inflight: 0, max_inflight: 3,
        weight: 5, proxy: null, quota: null, requests: 0, failures: 0, tokens_in: 0, tokens_out: 0, month_requests: 0, monthly_limit: 0, last_used: null, models: [],
    });
    assert.equal((await ask(gw)).status, 200);
    assert.equal(fake.last.key, secret);
    const used = await ok(gw, 'GET', `/credentials/${id}`);
    assert.equal(used.requests, 1);
    assert.deepEqual([used.tokens_in, used.tokens_out], [11, 7]);
    assert.match(used.last_used, TIME);
    assert.deepEqual((await ok(gw, 'GET', '/credentials')).data.map((c) => [c.id, c.requests]), [[id, 1]]);

    const changed = await ok(gw, 'PATCH', `/credentials/${id}`, { label: 'yours', weight: 7, enabled: false });
    assert.deepEqual([changed.label, changed.weight, changed.enabled, changed.state, changed.max_inflight], ['yours', 7, false, 'disabled', 3]);
    assert.equal((await ask(gw)).status, 503);
    assert.equal((await ok(gw, 'POST', `/credentials/${id}/reset`)).state, 'disabled', 'reset does not enable what was switched off by hand');
    assert.equal((await ok(gw, 'PATCH', `/credentials/${id}`, { enabled: true })).state, 'ok');
    assert.equal((await ask(gw)).status, 200);

    await ok(gw, 'PATCH', `/credentials/${id}`, { secret: 'sk-up-second-one-5432' });
    assert.equal((await ask(gw)).status, 200);
    assert.equal(fake.last.key, 'sk-up-second-one-5432');

    fake.always(play.rateLimited(1800));
    assert.equal((await ask(gw)).status, 429);
    const cooling = await ok(gw, 'GET', `/credentials/${id}`);
    assert.deepEqual([cooling.state, cooling.reason, cooling.failures], ['cooling', 'rate_limited', 1]);
    const seconds = (Date.parse(cooling.until) - Date.now()) / 1000;
    assert.ok(seconds > 1700 && seconds <= 1801, `until ${cooling.until}`);
    fake.always(play.ok());
    const reset = await ok(gw, 'POST', `/credentials/${id}/reset`);
    assert.deepEqual([reset.state, reset.reason, reset.until], ['ok', null, null]);
    assert.equal((await ask(gw)).status, 200);

    assert.deepEqual(await ok(gw, 'DELETE', `/credentials/${id}`), { id, deleted: true });
    assert.equal((await ask(gw)).status, 503);
    for (const [method, path] of [['GET', ''], ['PATCH', ''], ['DELETE', ''], ['POST', '/check'], ['POST', '/reset']])
        await refused(gw, method, `/credentials/${id}${path}`, method === 'PATCH' ? {} : undefined, 404);
});

scenario('a check asks the platform and tells what it said', async (t) => {
    const fake = await startFakeOpenai(t, { keys: ['sk-up-good-one-1111'], strict: false });
    const gw = await startGateway(t, { config: { ...AUTH, 'provider up': providerFor(fake) } });
    const good = (await ok(gw, 'GET', '/credentials')).data[0];
    const bad = await ok(gw, 'POST', '/credentials', { provider: 'up', secret: 'sk-up-bad-one-22222' }, 201);
    const fine = await ok(gw, 'POST', `/credentials/${good.id}/check`);
    assert.equal(Object.keys(fine).join(), 'ok,state,message,ms');
    assert.deepEqual([fine.ok, fine.state], [true, 'ok']);
    const told = await ok(gw, 'POST', `/credentials/${bad.id}/check`);
    assert.equal(told.ok, false);
    assert.equal(told.state, 'disabled');
    assert.ok(told.message.length > 0 && Number.isInteger(told.ms));
    assert.equal((await ok(gw, 'GET', `/credentials/${bad.id}`)).state, 'disabled');
    assert.equal(fake.requests.length, 0, 'a check costs no answer');
});

scenario('a proxy’s password is kept when its shown form is sent back', async (t) => {
    const proxy = await startHttpProxy(t);
    const fake = await startFakeOpenai(t, { keys: ['sk-up-behind-a-proxy'] });
    const gw = await startGateway(t, { config: { ...AUTH, 'provider up': providerFor(fake, { credentials: null }) } });
    const url = (password) => `http://me:${password}@127.0.0.1:${proxy.port}`;
    const basic = (password) => `Basic ${Buffer.from(`me:${password}`).toString('base64')}`;
    const made = await ok(gw, 'POST', '/credentials', { provider: 'up', secret: 'sk-up-behind-a-proxy', proxy: url('one') }, 201);
    assert.equal(made.proxy, url('***'));
    await ok(gw, 'PATCH', `/credentials/${made.id}`, { proxy: made.proxy, label: 'same' });
    assert.equal((await ask(gw)).status, 200);
    assert.equal(proxy.authorizations.at(-1), basic('one'));
    await ok(gw, 'PATCH', `/credentials/${made.id}`, { proxy: url('two') });
    assert.equal((await ask(gw)).status, 200);
    assert.equal(proxy.authorizations.at(-1), basic('two'));
    assert.equal((await ok(gw, 'PATCH', `/credentials/${made.id}`, { proxy: null })).proxy, null);
    const seen = proxy.seen.length;
    assert.equal((await ask(gw)).status, 200);
    assert.equal(proxy.seen.length, seen);
});

scenario('the one that stands in where no credential is needed', async (t) => {
    const gw = await startGateway(t, { config: { ...AUTH, 'provider demo': { type: 'demo' } } });
    const [one] = (await ok(gw, 'GET', '/credentials')).data;
    assert.deepEqual([one.provider, one.hint, one.source], ['demo', '', 'config']);
    for (const [method, body] of [['PATCH', { enabled: false }], ['PATCH', { weight: 3 }], ['DELETE', undefined]]) {
        const answer = await admin(gw, method, `/credentials/${one.id}`, body);
        assert.equal(answer.status, 409, answer.text);
        assert.equal(answer.error.code, 'stand_in');
    }
    assert.equal((await ok(gw, 'GET', `/credentials/${one.id}`)).state, 'ok');
    assert.equal((await ok(gw, 'POST', `/credentials/${one.id}/reset`)).state, 'ok');
    assert.equal((await admin(gw, 'DELETE', `/credentials/${BigInt(one.id) + 1n}`)).status, 404);
    const made = await ok(gw, 'POST', '/credentials', { provider: 'demo', secret: 'any-word-will-do' }, 201);
    assert.deepEqual((await ok(gw, 'GET', '/credentials')).data.map((c) => c.id), [made.id]);
    assert.equal((await admin(gw, 'PATCH', `/credentials/${one.id}`, { weight: 3 })).status, 404);
});

scenario('what stands in the file is marked so and changed there', async (t) => {
    const fake = await startFakeOpenai(t);
    const gw = await startGateway(t, { config: { ...AUTH, 'provider up': providerFor(fake), 'provider demo': { type: 'demo' } } });
    const all = (await ok(gw, 'GET', '/credentials')).data;
    assert.deepEqual((await ok(gw, 'GET', '/credentials?provider=up')).data.map((c) => [c.provider, c.source]), [['up', 'config'], ['up', 'config'], ['up', 'config']]);
    assert.equal(all.length, 4);
    const one = all.find((c) => c.provider === 'up');
    assert.equal(one.hint, '', 'sk-up-1 is too short for a hint');
    await refused(gw, 'PATCH', `/credentials/${one.id}`, { secret: 'sk-another-secret' }, 400, 'secret');
    await refused(gw, 'DELETE', `/credentials/${one.id}`, undefined, 400);
    assert.equal((await ok(gw, 'PATCH', `/credentials/${one.id}`, { enabled: false })).state, 'disabled');
    await gw.restart();
    assert.equal((await ok(gw, 'GET', `/credentials/${one.id}`)).enabled, false);
});

scenario('changes that come together do not undo each other, and kill -9 loses none that was acknowledged', async (t) => {
    const fake = await startFakeOpenai(t, { keys: ['sk-up-1'] });
    const gw = await startGateway(t, { config: { auth: { admin_secret: SECRET }, 'provider up': providerFor(fake) } });
    const { id } = await ok(gw, 'POST', '/credentials', { provider: 'up', secret: 'sk-up-together-1' }, 201);
    const parts = [{ label: 'second account' }, { weight: 7 }, { max_inflight: 3 }, { proxy: 'http://127.0.0.1:9' }];
    await Promise.all(parts.map((part) => ok(gw, 'PATCH', `/credentials/${id}`, part)));
    const twins = await Promise.all(Array.from({ length: 4 }, () => admin(gw, 'POST', '/credentials', { provider: 'up', secret: 'sk-up-twin-of-four' })));
    assert.deepEqual(twins.map((a) => a.status).sort(), [201, 400, 400, 400]);
    await gw.restart({ how: 'SIGKILL' });
    const kept = await ok(gw, 'GET', `/credentials/${id}`);
    assert.deepEqual([kept.label, kept.weight, kept.max_inflight], ['second account', 7, 3]);
    assert.ok(kept.proxy);
});

scenario('pages of credentials', async (t) => {
    const gw = await startGateway(t, { config: { ...AUTH, 'provider up': { type: 'openai', base_url: 'http://127.0.0.1:1/v1', models: ['m1'] } } });
    for (let i = 0; i < 5; i++) await ok(gw, 'POST', '/credentials', { provider: 'up', secret: `sk-secret-number-${i}` }, 201);
    const seen = [];
    let path = '/credentials?provider=up&limit=2';
    for (let pages = 0; path; pages++) {
        assert.ok(pages < 4);
        const page = await ok(gw, 'GET', path);
        seen.push(...page.data.map((c) => c.id));
        path = page.next && `/credentials?provider=up&limit=2&cursor=${page.next}`;
    }
    assert.equal(new Set(seen).size, 5);
    assert.equal(seen.length, 5);
    await refused(gw, 'GET', '/credentials?limit=0', undefined, 400, 'limit');
    await refused(gw, 'GET', '/credentials?cursor=x', undefined, 400, 'cursor');
});

scenario('what is wrong in a body is named', async (t) => {
    const gw = await startGateway(t, { config: { ...AUTH, 'provider up': { type: 'openai', base_url: 'http://127.0.0.1:1/v1', models: ['m1'] } } });
    const fine = { provider: 'up', secret: 'sk-some-secret-1234' };
    for (const [body, param] of [
        [{ ...fine, secrt: 'x' }, 'secrt'],
        [{ ...fine, id: '7' }, 'id'],
        [{ secret: 'x' }, 'provider'],
        [{ provider: 'up' }, 'secret'],
        [{ ...fine, provider: 'nobody' }, 'provider'],
        [{ ...fine, secret: '' }, 'secret'],
        [{ ...fine, secret: 7 }, 'secret'],
        [{ ...fine, weight: '1' }, 'weight'],
        [{ ...fine, weight: 0 }, 'weight'],
        [{ ...fine, enabled: 'yes' }, 'enabled'],
        [{ ...fine, proxy: 'host:3128' }, 'proxy'],
        [{ ...fine, label: ['x'] }, 'label'],
    ])
        await refused(gw, 'POST', '/credentials', body, 400, param);
    for (const body of ['', '[]', '"x"', '{"provider":"up"', '{"provider":"up","secret":"sk-a-secret-1234"}x']) {
        const answer = await admin(gw, 'POST', '/credentials', body);
        assert.equal(answer.status, 400, `${body}: ${answer.text}`);
        assert.ok(answer.error);
    }
    const { id } = await ok(gw, 'POST', '/credentials', fine, 201);
    await refused(gw, 'POST', '/credentials', fine, 400, 'secret');
    await refused(gw, 'PATCH', `/credentials/${id}`, { provider: 'up' }, 400, 'provider');
    assert.equal((await ok(gw, 'GET', '/credentials')).data.length, 1);
});

scenario('methods and paths that are not there', async (t) => {
    const gw = await startGateway(t, { config: { ...AUTH, 'provider demo': { type: 'demo' } } });
    for (const path of ['/nothing', '', '/credentials/x', '/keys/0', '/keys/18446744073709551616', '/requests/nobody']) await refused(gw, 'GET', path, undefined, 404);
    const wrong = await admin(gw, 'PUT', '/keys', {});
    assert.equal(wrong.status, 405);
    assert.equal(wrong.headers.allow, 'GET, POST');
    assert.equal(wrong.error.code, 'method_not_supported');
    for (const path of ['/credentials', '/keys', '/providers', '/models', '/stats', '/usage', '/requests']) {
        const head = await admin(gw, 'HEAD', path);
        assert.deepEqual([head.status, head.text, head.headers['content-type']], [200, '', 'application/json'], path);
    }
});

scenario('secrets never come out, whatever is asked', async (t) => {
    const secrets = { cred: 'sk-up-QQQQ-never-shown-1', proxy: 'pr0xy-passw0rd-never', configured: 'sk-conf-QQQQ-never-shown-2' };
    const gw = await startGateway(t, {
        config: { ...AUTH, 'provider up': { type: 'openai', base_url: 'http://127.0.0.1:1/v1', models: ['m1'], credentials: [secrets.configured] } },
    });
    const outputs = [];
    const note = async (...args) => outputs.push((await admin(gw, ...args)).text) && outputs.at(-1);
    const { id } = JSON.parse(await note('POST', '/credentials', { provider: 'up', secret: secrets.cred, proxy: `http://user:${secrets.proxy}@127.0.0.1:1` }));
    const key = JSON.parse(await note('POST', '/keys', { name: 'k' }));
    outputs.pop(); // the one answer that shows the key
    await note('POST', '/credentials', { provider: 'up', secret: secrets.cred });
    await note('POST', '/credentials', { provider: 'nobody', secret: secrets.cred });
    await note('POST', '/credentials', { provider: 'up', secret: [secrets.cred] });
    await note('PATCH', `/credentials/${id}`, { proxy: `http://user:***@127.0.0.1:1`, label: 'x' });
    await note('POST', '/keys', { name: 'twin', key: key.key });
    await note('PATCH', `/keys/${key.id}`, { rpm: 9 });
    await ask(gw);
    await note('POST', `/credentials/${id}/check`);
    for (const path of ['/credentials', `/credentials/${id}`, '/keys', `/keys/${key.id}`, '/providers', '/models', '/stats', '/usage?by=credential', '/requests']) await note('GET', path);
    const all = outputs.join('\n') + gw.output;
    for (const secret of [...Object.values(secrets), key.key, SECRET, CLIENT_KEY]) assert.ok(!all.includes(secret), `${secret} came out`);
    const cred = await ok(gw, 'GET', `/credentials/${id}`);
    assert.deepEqual([cred.hint, cred.proxy, cred.label], ['wn-1', 'http://user:***@127.0.0.1:1', 'x']);
});

scenario('a restart keeps everything', async (t) => {
    const fake = await startFakeOpenai(t, { keys: ['sk-up-kept-over-1234'] });
    const gw = await startGateway(t, { config: { ...AUTH, 'provider up': providerFor(fake, { credentials: null }) } });
    const { id } = await ok(gw, 'POST', '/credentials', { provider: 'up', secret: 'sk-up-kept-over-1234', label: 'kept', weight: 4, proxy: null }, 201);
    const made = await ok(gw, 'POST', '/keys', { name: 'team', models: ['m1'], rpm: 50, budget_usd: 1.25, budget_period: 'month', expires: '2099-01-01T00:00:00Z' }, 201);
    assert.equal((await ask(gw, 'm1', made.key)).status, 200);
    const before = [await ok(gw, 'GET', `/credentials/${id}`), await ok(gw, 'GET', `/keys/${made.id}`)];
    await gw.restart();
    const after = [await ok(gw, 'GET', `/credentials/${id}`), await ok(gw, 'GET', `/keys/${made.id}`)];
    assert.ok(Math.abs(Date.parse(after[0].last_used) - Date.parse(before[0].last_used)) < 1000);
    for (const rows of [before, after]) delete rows[0].last_used;
    assert.deepEqual(after, before);
    assert.equal((await ask(gw, 'm1', made.key)).status, 200);
    await gw.restart({ how: 'SIGKILL' });
    assert.equal((await ok(gw, 'GET', `/credentials/${id}`)).label, 'kept');
    assert.equal((await ask(gw, 'm1', made.key)).status, 200);
});

// ---- who may ask ----------------------------------------------------------------------------------------------

scenario('a wrong admin secret is refused, and too many of them', async (t) => {
    const gw = await startGateway(t, { config: { auth: { ...AUTH.auth, ip_bad_auth_per_minute: 4 }, 'provider demo': { type: 'demo' } } });
    for (const key of [null, CLIENT_KEY, SECRET.slice(0, -1), `${SECRET}x`]) {
        const answer = await admin(gw, 'GET', '/keys', undefined, { key });
        assert.deepEqual([answer.status, answer.error.code], [401, 'invalid_api_key'], String(key));
    }
    const statuses = [];
    for (let i = 0; i < 3; i++) statuses.push((await admin(gw, 'GET', '/keys', undefined, { key: `guess-${i}` })).status);
    assert.equal(statuses.at(-1), 429, statuses.join());
    // the seed's routes count, too
    assert.equal((await request(gw, { path: '/api/key/all', key: 'guess' })).status, 429);
});

scenario('without an admin secret there is no admin API', async (t) => {
    const gw = await startGateway(t, { config: { auth: { keys: [CLIENT_KEY] }, 'provider demo': { type: 'demo' } } });
    for (const [method, path] of [['GET', '/admin/api/keys'], ['POST', '/admin/api/credentials'], ['GET', '/admin/api/stats'], ['GET', '/api/key/all']])
        for (const key of [null, CLIENT_KEY, '']) assert.equal((await request(gw, { method, path, key })).status, 404, `${method} ${path}`);
});

scenario('the admin secret opens no chat, and the routes stand below the prefix', async (t) => {
    const gw = await startGateway(t, { config: { ...AUTH, server: { route_prefix: 'hf' }, 'provider demo': { type: 'demo' } } });
    assert.equal((await ask(gw, 'demo', SECRET)).status, 401);
    assert.equal((await request(gw, { path: '/hf/admin/api/keys', key: SECRET })).status, 200);
});

// ---- client keys ----------------------------------------------------------------------------------------------

scenario('a key is made, shown once, used, changed and removed', async (t) => {
    const gw = await startGateway(t, { config: { ...AUTH, 'provider demo': { type: 'demo' } } });
    const made = await ok(gw, 'POST', '/keys', { name: 'team' }, 201);
    assert.match(made.key, /^sk-cmx-[0-9A-Za-z]{47}$/);
    const { key, ...shown } = made;
    assert.deepEqual(await ok(gw, 'GET', `/keys/${made.id}`), shown);
    assert.deepEqual([shown.name, shown.hint, shown.source, shown.enabled, shown.models, shown.rpm, shown.budget_period], ['team', key.slice(-4), 'api', true, null, null, 'total']);
    const list = (await ok(gw, 'GET', '/keys')).data;
    assert.deepEqual(list.map((k) => [k.name, k.source, k.id]), [['key#1', 'config', null], ['team', 'api', made.id]]);
    assert.equal((await ask(gw, 'demo', key)).status, 200);
    assert.equal((await ask(gw, 'demo', `${key.slice(0, -1)}_`)).status, 401);

    assert.equal((await ok(gw, 'PATCH', `/keys/${made.id}`, { name: 'others', enabled: false, rpm: 3 })).rpm, 3);
    assert.equal((await ask(gw, 'demo', key)).status, 401);
    assert.equal((await ok(gw, 'PATCH', `/keys/${made.id}`, { enabled: true, rpm: null })).rpm, null);
    assert.equal((await ask(gw, 'demo', key)).status, 200);
    assert.deepEqual(await ok(gw, 'DELETE', `/keys/${made.id}`), { id: made.id, deleted: true });
    assert.equal((await ask(gw, 'demo', key)).status, 401);
    await refused(gw, 'DELETE', `/keys/${made.id}`, undefined, 404);
});

scenario('a key of the operator’s own', async (t) => {
    const gw = await startGateway(t, { config: { ...AUTH, 'provider demo': { type: 'demo' } } });
    const made = await ok(gw, 'POST', '/keys', { name: 'own', key: 'my-own-key-for-all-7777' }, 201);
    assert.deepEqual([made.key, made.hint], ['my-own-key-for-all-7777', '7777']);
    assert.equal((await ask(gw, 'demo', 'my-own-key-for-all-7777')).status, 200);
    await refused(gw, 'POST', '/keys', { name: 'twin', key: 'my-own-key-for-all-7777' }, 400, 'key');
    const twin = await ok(gw, 'POST', '/keys', { name: 'limits for the one in the file', key: CLIENT_KEY, models: ['other'] }, 201);
    assert.equal((await ask(gw, 'demo', CLIENT_KEY)).status, 403);
    await ok(gw, 'DELETE', `/keys/${twin.id}`);
    assert.equal((await ask(gw, 'demo', CLIENT_KEY)).status, 200);
    await refused(gw, 'POST', '/keys', { name: 'x', key: 'with blank' }, 400, 'key');
    await refused(gw, 'POST', '/keys', { name: 'x', key: 'sk-cmx-mistyped' }, 400, 'key');
    await refused(gw, 'POST', '/keys', { name: 'x', key: '' }, 400, 'key');
    await refused(gw, 'POST', '/keys', { name: '' }, 400, 'name');
    await refused(gw, 'POST', '/keys', { name: 'x', budget_period: 'year' }, 400, 'budget_period');
    await refused(gw, 'POST', '/keys', { name: 'x', expires: 'tomorrow' }, 400, 'expires');
    await refused(gw, 'POST', '/keys', { name: 'x', models: [1] }, 400, 'models');
    await refused(gw, 'POST', '/keys', { name: 'x', limit: 1 }, 400, 'limit');
    assert.equal((await ok(gw, 'GET', '/keys')).data.length, 2);
    const changed = await ok(gw, 'PATCH', `/keys/${made.id}`, { key: 'another-key-of-mine-8888' });
    assert.deepEqual([changed.hint, changed.key], ['8888', undefined]);
    assert.equal((await ask(gw, 'demo', 'my-own-key-for-all-7777')).status, 401);
    assert.equal((await ask(gw, 'demo', 'another-key-of-mine-8888')).status, 200);
});

scenario('limits of a key: requests, models, expiry, budget', async (t) => {
    const fake = await startFakeOpenai(t);
    const gw = await startGateway(t, { config: { ...AUTH, 'provider up': providerFor(fake, { models: ['m1', 'm2'] }), 'price m1': { input: 1, output: 1000 } } });
    const make = async (more) => ok(gw, 'POST', '/keys', { name: 'k', ...more }, 201);

    const two = await make({ rpm: 2 });
    const first = await ask(gw, 'm1', two.key);
    assert.deepEqual([first.headers['x-ratelimit-limit-requests'], first.headers['x-ratelimit-remaining-requests']], ['2', '1']);
    assert.equal((await ask(gw, 'm1', two.key)).status, 200);
    const third = await ask(gw, 'm1', two.key);
    assert.equal(third.status, 429, third.text);
    assert.equal(third.headers['x-ratelimit-remaining-requests'], '0');
    assert.ok(Number(third.headers['retry-after']) >= 1 && Number(third.headers['retry-after']) <= 61, third.headers['retry-after']);

    const some = await make({ models: ['m2'] });
    const foreign = await ask(gw, 'm1', some.key);
    assert.deepEqual([foreign.status, foreign.error.type], [403, 'invalid_request_error'], foreign.text);
    assert.equal((await ask(gw, 'm2', some.key)).status, 200);

    const short = await make({ expires: new Date(Date.now() + 2500).toISOString() });
    assert.equal((await ask(gw, 'm1', short.key)).status, 200);
    await sleep(3000);
    assert.equal((await ask(gw, 'm1', short.key)).status, 401);

    const poor = await make({ budget_usd: 0.0001, budget_period: 'day' });
    const rich = await make({ budget_usd: 1000, budget_period: 'day' });
    assert.equal((await ask(gw, 'm1', rich.key)).status, 200);
    await until(async () => (await ok(gw, 'GET', `/keys/${rich.id}`)).spent_usd > 0, 'the cost to be settled');
    assert.equal((await ok(gw, 'GET', `/keys/${rich.id}`)).spent_usd, 0.007011, '11 tokens at $1 and 7 at $1000 a million');
    const broke = await ask(gw, 'm1', poor.key);
    assert.equal(broke.status, 429, broke.text);
    assert.equal(broke.error.code, 'insufficient_quota');
});

// ---- figures --------------------------------------------------------------------------------------------------

scenario('providers, models and live figures', async (t) => {
    const fake = await startFakeOpenai(t);
    const gw = await startGateway(t, {
        config: {
            ...AUTH,
            'provider up': providerFor(fake, { models: ['m1', 'ours=theirs'] }),
            'provider demo': { type: 'demo', priority: 5 },
            'model best': { targets: ['up/m1 weight=3', 'demo/demo'], strategy: 'weighted' },
        },
    });
    fake.key('sk-up-1', play.rateLimited(500));
    for (let i = 0; i < 3; i++) assert.equal((await ask(gw)).status, 200);
    const providers = (await ok(gw, 'GET', '/providers')).data;
    const up = providers.find((p) => p.name === 'up');
    assert.deepEqual([up.type, up.base_url, up.models], ['openai', fake.base, ['m1', 'ours']]);
    assert.deepEqual([up.credentials.total, up.credentials.ok, up.credentials.cooling], [3, 2, 1]);
    assert.ok(providers.find((p) => p.name === 'demo').models.includes('demo'));

    const models = (await ok(gw, 'GET', '/models')).data;
    assert.deepEqual(models.find((m) => m.id === 'ours').targets.map((x) => [x.provider, x.model]), [['up', 'theirs']]);
    const best = models.find((m) => m.id === 'best');
    assert.deepEqual([best.strategy, best.targets.map((x) => [x.provider, x.model, x.weight])], ['weighted', [['up', 'm1', 3], ['demo', 'demo', 1]]]);

    const hold = play.lockstep(['a', 'b']);
    fake.key('sk-up-2', hold), fake.key('sk-up-3', hold);
    const open = request(gw, { body: chat('m1', 'x', { stream: true }) });
    const stats = await until(async () => {
        const s = await ok(gw, 'GET', '/stats');
        return s.streams === 1 && s;
    }, 'the stream to be counted');
    for (const name of ['uptime_s', 'requests', 'requests_per_s', 'exchanges', 'streams', 'attempts', 'loop_lag_us', 'rss_bytes', 'keys', 'waiting', 'dropped_rows'])
        assert.equal(typeof stats[name], 'number', name);
    assert.ok(stats.rss_bytes > 4e6 && stats.requests >= 4 && stats.requests_per_s > 0);
    assert.deepEqual([stats.store_trouble, stats.draining, stats.credentials.total, stats.keys], [null, false, 4, 1]);
    hold.confirm(), hold.confirm();
    assert.equal((await open).status, 200);
    await until(async () => (await ok(gw, 'GET', '/stats')).streams === 0, 'the stream to be gone');
});

scenario('usage and the log of requests', async (t) => {
    const fake = await startFakeOpenai(t);
    const gw = await startGateway(t, { config: { ...AUTH, 'provider up': providerFor(fake, { models: ['m1', 'm2'] }), 'price m1': { input: 1, output: 1000 } } });
    const made = await ok(gw, 'POST', '/keys', { name: 'team' }, 201);
    fake.key('sk-up-1', play.badKey());
    fake.key('sk-up-2', play.ok()), fake.key('sk-up-3', play.ok());
    for (let i = 0; i < 3; i++) assert.equal((await ask(gw, 'm1', made.key)).status, 200);
    assert.equal((await ask(gw, 'm2')).status, 200);
    const bad = await request(gw, { body: { model: 'm1', messages: [] } });
    assert.equal(bad.status, 400);

    const log = await until(async () => {
        const page = await ok(gw, 'GET', '/requests');
        return page.data.filter((r) => r.outcome === 'ok').length === 4 && page;
    }, 'the log to be written');
    const ofTeam = (await ok(gw, 'GET', '/requests?key=team')).data;
    assert.equal(ofTeam.length, 3);
    assert.ok(ofTeam.every((r) => r.key === 'team' && r.key_id === made.id && r.model === 'm1' && r.status === 200 && r.provider === 'up'));
    assert.ok(log.data.every((r, i) => i === 0 || r.at <= log.data[i - 1].at), 'newest first');
    const twice = ofTeam.find((r) => r.attempt_count === 2);
    assert.ok(twice, 'one request met the refused credential first');
    assert.equal(twice.attempts.length, 2);
    assert.deepEqual(twice.others.map((o) => [o.state, o.reason]), [['disabled', 'invalid_credential']]);
    assert.ok(JSON.stringify(twice.attempts[0]).includes('invalid_credential'), JSON.stringify(twice.attempts));
    assert.deepEqual([twice.input_uncached, twice.output_text, twice.cost_usd, twice.usage_source], [11, 7, 0.007011, 'upstream']);
    assert.deepEqual(await ok(gw, 'GET', `/requests/${twice.id}`), twice);
    assert.deepEqual((await ok(gw, 'GET', '/requests?model=m2')).data.map((r) => r.model), ['m2']);
    assert.deepEqual((await ok(gw, 'GET', '/requests?outcome=cut')).data, []);

    const seen = [];
    let path = '/requests?limit=2&outcome=ok';
    while (path) {
        const page = await ok(gw, 'GET', path);
        assert.ok(page.data.length <= 2);
        seen.push(...page.data.map((r) => r.id));
        path = page.next && `/requests?limit=2&outcome=ok&cursor=${encodeURIComponent(page.next)}`;
    }
    assert.equal(new Set(seen).size, 4);
    assert.equal(seen.length, 4);
    await refused(gw, 'GET', '/requests?limit=501', undefined, 400, 'limit');
    assert.equal((await admin(gw, 'GET', '/requests?cursor=nonsense')).status, 400);

    const usage = async (query) => (await ok(gw, 'GET', `/usage?${query}`)).data;
    const byModel = await usage('by=model');
    assert.deepEqual(byModel.map((r) => [r.group, r.requests, r.input_uncached, r.output_text]).sort(), [['m1', 3, 33, 21], ['m2', 1, 11, 7]]);
    assert.equal(byModel.find((r) => r.group === 'm1').cost_usd, 0.021033);
    const byKey = await usage('by=key');
    assert.deepEqual([byKey.find((r) => r.group === 'team').id, byKey.find((r) => r.group === 'team').requests], [made.id, 3]);
    for (const by of ['provider', 'credential', 'hour', 'day']) assert.equal((await usage(`by=${by}`)).reduce((sum, r) => sum + r.requests, 0), 4, by);
    assert.deepEqual(await usage('by=model&from=2020-01-01&to=2020-02-01T00:00:00Z'), []);
    await refused(gw, 'GET', '/usage?from=yesterday', undefined, 400, 'from');
    assert.equal((await admin(gw, 'GET', '/usage?by=mood')).status, 400);
});

// ---- reload, rekey, backup --------------------------------------------------------------------------------------

scenario('reload says what changed, or what is wrong and then nothing has', async (t) => {
    const config = { ...AUTH, 'provider demo': { type: 'demo' } };
    const gw = await startGateway(t, { config });
    assert.deepEqual(await ok(gw, 'POST', '/reload'), { changed: [] });
    gw.writeConfig({ ...config, stream: { keepalive: '3s' }, 'provider second': { type: 'demo', models: ['other=demo'] } });
    const { changed } = await ok(gw, 'POST', '/reload');
    assert.ok(changed.some((name) => name.startsWith('stream.keepalive')) && changed.some((name) => name.startsWith('provider.second')), changed.join());
    assert.equal((await ask(gw, 'other')).status, 200);

    gw.writeConfig({ ...config, stream: { keepalive: 'soon' }, nonsense: { x: 1 } });
    const answer = await admin(gw, 'POST', '/reload');
    assert.equal(answer.status, 400);
    const { error, problems } = answer.json;
    assert.equal(error.code, 'config_problems');
    assert.ok(error.message.includes('stream.keepalive') && error.message.includes('nonsense'), error.message);
    assert.ok(problems.length >= 2 && problems.every((p) => p.where.includes('chatmux.ini:') && p.text.length > 0), JSON.stringify(problems));
    assert.equal((await ask(gw, 'other')).status, 200, 'nothing has changed');
    assert.ok((await ok(gw, 'GET', '/providers')).data.some((p) => p.name === 'second'));
});

scenario('a new master key and a backup, while it serves', async (t) => {
    const fake = await startFakeOpenai(t, { keys: ['sk-up-stored-secret-1'] });
    const gw = await startGateway(t, { config: { ...AUTH, 'provider up': providerFor(fake, { credentials: null }) } });
    await ok(gw, 'POST', '/credentials', { provider: 'up', secret: 'sk-up-stored-secret-1' }, 201);
    const rekeyed = await ok(gw, 'POST', '/rekey');
    assert.equal(rekeyed.configured, false);
    assert.ok(rekeyed.key_source.endsWith('master.key'), rekeyed.key_source);
    await refused(gw, 'POST', '/backup', { path: 'relative.db' }, 400, 'path');
    const path = `${gw.dir}/copy.db`;
    const copied = await ok(gw, 'POST', '/backup', { path });
    assert.ok(copied.path === path && copied.bytes > 0);
    assert.ok(existsSync(path));
    assert.ok((await admin(gw, 'POST', '/backup', { path })).status >= 400, 'a file that exists is not overwritten');
    await gw.restart();
    assert.equal((await ask(gw)).status, 200);
});

// ---- hixai2api ------------------------------------------------------------------------------------------------

const seed = (gw, method, path, body, key = SECRET) => request(gw, { path, method, body, key, headers: {} });
const fine = (data = '') => ({ code: 0, message: 'success', data });

scenario('hixai2api: client keys over its old routes', async (t) => {
    const hix = await startFakeHix(t);
    const gw = await startGateway(t, { config: { ...AUTH, 'provider hix': { type: 'hix', base_url: hix.base, credentials: [sessionToken('hixOne')] } } });
    assert.deepEqual((await seed(gw, 'POST', '/api/auth/verify')).json, fine());
    const raw = await request(gw, { path: '/api/auth/verify', method: 'POST', key: null, headers: { authorization: SECRET } });
    assert.equal(raw.status, 200, 'Bearer is optional');
    const wrong = await seed(gw, 'POST', '/api/auth/verify', undefined, 'wrong');
    assert.deepEqual([wrong.status, wrong.json], [401, { code: 1, message: 'unauthorized', data: '' }]);

    assert.deepEqual((await seed(gw, 'GET', '/api/key/all')).json, fine(null));
    assert.deepEqual((await seed(gw, 'PUT', '/api/key', { apiKey: 'old-client-key-1234', remark: 'desk' })).json, fine());
    assert.equal((await ask(gw, 'gpt-4o', 'old-client-key-1234')).status, 200);
    const twin = await seed(gw, 'PUT', '/api/key', { apiKey: 'old-client-key-1234', remark: 'again' });
    assert.deepEqual([twin.status, twin.json], [400, { code: 0, message: 'API-KEY already exists', data: '' }]);
    const broken = await seed(gw, 'PUT', '/api/key', '{"apiKey":');
    assert.deepEqual([broken.status, broken.json.code], [500, 1]);

    const [row] = (await seed(gw, 'GET', '/api/key/all')).json.data;
    assert.equal(Object.keys(row).join(), 'id,apiKey,remark,createTime');
    assert.deepEqual([row.apiKey, row.remark], ['1234', 'desk']);
    assert.match(row.createTime, /^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d$/);
    assert.deepEqual((await seed(gw, 'POST', '/api/key/update', { ...row, remark: 'shelf' })).json, fine());
    assert.equal((await ask(gw, 'gpt-4o', 'old-client-key-1234')).status, 200, 'the hint keeps the key');
    assert.equal((await seed(gw, 'GET', '/api/key/all')).json.data[0].remark, 'shelf');
    assert.deepEqual((await seed(gw, 'POST', '/api/key/update', { id: row.id, apiKey: 'new-client-key-5678', remark: 'shelf' })).json, fine());
    assert.equal((await ask(gw, 'gpt-4o', 'old-client-key-1234')).status, 401);
    assert.equal((await ask(gw, 'gpt-4o', 'new-client-key-5678')).status, 200);
    const taken = await seed(gw, 'POST', '/api/key/update', { id: row.id, apiKey: CLIENT_KEY });
    assert.deepEqual([taken.status, taken.json], [400, { code: 1, message: 'API-KEY already exists', data: '' }]);
    for (const body of [{ apiKey: 'x' }, { id: '', apiKey: 'x' }]) {
        const invalid = await seed(gw, 'POST', '/api/key/update', body);
        assert.deepEqual([invalid.status, invalid.json], [400, { code: 1, message: 'Invalid ID', data: '' }]);
    }
    assert.deepEqual((await seed(gw, 'DELETE', "/api/key/1%20or%201=1")).json, fine(), 'unknown ids are no failure');
    assert.equal((await ask(gw, 'gpt-4o', 'new-client-key-5678')).status, 200);
    assert.deepEqual((await seed(gw, 'DELETE', `/api/key/${row.id}`)).json, fine());
    assert.equal((await ask(gw, 'gpt-4o', 'new-client-key-5678')).status, 401);
});

scenario('hixai2api: cookies over its old routes', async (t) => {
    const tokens = [sessionToken('hixOne'), sessionToken('hixTwo')];
    const hix = await startFakeHix(t, { sessions: tokens });
    const gw = await startGateway(t, { config: { ...AUTH, 'provider hix': { type: 'hix', base_url: hix.base } } });
    assert.deepEqual((await seed(gw, 'GET', '/api/cookie/all')).json, fine(null));
    assert.deepEqual((await seed(gw, 'PUT', '/api/cookie', { cookie: tokens[0], remark: 'first' })).json, fine());
    hix.next(say.answer({ pieces: ['over the cookie'] }));
    assert.ok((await ask(gw, 'gpt-4o')).text.includes('over the cookie'));
    const twin = await seed(gw, 'PUT', '/api/cookie', { cookie: `__Secure-next-auth.session-token=${tokens[0]}`, remark: 'again' });
    assert.deepEqual([twin.status, twin.json], [400, { code: 1, message: 'COOKIE already exists', data: '' }]);
    const broken = await seed(gw, 'PUT', '/api/cookie', '{');
    assert.equal(broken.status, 500);
    assert.ok(broken.error.message.length > 0);

    const [row] = (await seed(gw, 'GET', '/api/cookie/all')).json.data;
    assert.equal(Object.keys(row).join(), 'id,cookie,credit,advancedCredit,remark,createTime');
    assert.deepEqual([row.cookie, row.remark], [tokens[0].slice(-4), 'first']);
    assert.deepEqual((await seed(gw, 'POST', '/api/cookie/update', { ...row, remark: 'renamed' })).json, fine());
    assert.equal((await ask(gw, 'gpt-4o')).status, 200, 'the hint keeps the cookie');
    assert.equal((await seed(gw, 'GET', '/api/cookie/all')).json.data[0].remark, 'renamed');
    assert.deepEqual((await seed(gw, 'POST', '/api/cookie/update', { id: row.id, cookie: tokens[1], remark: 'renamed' })).json, fine());
    assert.equal((await ask(gw, 'gpt-4o')).status, 200);
    assert.equal(hix.requests.at(-1).session, tokens[1]);
    assert.deepEqual((await seed(gw, 'POST', '/api/cookie/credit/refresh')).json, fine());
    assert.deepEqual((await ok(gw, 'GET', '/credentials')).data.map((c) => [c.provider, c.label]), [['hix', 'renamed']]);
    assert.deepEqual((await seed(gw, 'DELETE', '/api/cookie/999999')).json, fine());
    assert.deepEqual((await seed(gw, 'DELETE', `/api/cookie/${row.id}`)).json, fine());
    assert.deepEqual((await ok(gw, 'GET', '/credentials')).data, []);
});

scenario('hixai2api: without such a provider its routes say so', async (t) => {
    const gw = await startGateway(t, { config: { ...AUTH, 'provider demo': { type: 'demo' } } });
    const answer = await seed(gw, 'GET', '/api/cookie/all');
    assert.equal(answer.status, 404);
    assert.match(answer.json.message, /hix/);
});

// ---- what tells of the routes -----------------------------------------------------------------------------------

scenario('/openapi.json holds what the gateway serves', async (t) => {
    const gw = await startGateway(t, { config: { ...AUTH, server: { route_prefix: 'hf' }, auth: { ...AUTH.auth, ip_bad_auth_per_minute: 0 }, 'provider demo': { type: 'demo' } } });
    const answer = await request(gw, { path: '/openapi.json', key: null });
    assert.deepEqual([answer.status, answer.headers['content-type']], [200, 'application/json']);
    const api = answer.json;
    assert.match(api.openapi, /^3\.1\./);
    for (const [path, methods] of Object.entries(api.paths))
        for (const [method, op] of Object.entries(methods)) {
            const target = path.replace(/\{\w+\}/g, '7');
            const got = await request(gw, { path: target, method: method.toUpperCase(), key: null, ...(op.requestBody && { body: {} }) });
            assert.ok(![404, 405].includes(got.status), `${method} ${path}: ${got.status}`);
            assert.equal(got.status === 401, op.security.length > 0, `${method} ${path}: ${got.status} without a key`);
        }
    const refs = new Set([...answer.text.matchAll(/#\/components\/schemas\/(\w+)/g)].map((m) => m[1]));
    for (const name of refs) assert.ok(api.components.schemas[name], name);
    // what comes out is what the document says
    const one = (await ok(gw, 'GET', '/credentials')).data[0];
    assert.deepEqual(Object.keys(one).sort(), Object.keys(api.components.schemas.Credential.properties).sort());
    assert.deepEqual(Object.keys(await ok(gw, 'GET', '/stats')).sort(), Object.keys(api.components.schemas.Stats.properties).sort());
});

scenario('/docs is a page that fetches nothing but the document', async (t) => {
    const gw = await startGateway(t, { config: { ...AUTH, 'provider demo': { type: 'demo' } } });
    const answer = await request(gw, { path: '/docs', key: null });
    assert.deepEqual([answer.status, answer.headers['content-type']], [200, 'text/html; charset=utf-8']);
    const { createHash } = await import('node:crypto');
    const policy = /http-equiv="Content-Security-Policy" content="([^"]+)"/.exec(answer.text)[1];
    assert.ok(policy.startsWith("default-src 'none'; connect-src 'self'; "), policy);
    for (const [tag, directive] of [['script', 'script-src'], ['style', 'style-src']]) {
        const bodies = [...answer.text.matchAll(new RegExp(`<${tag}[^>]*>([^]*?)</${tag}>`, 'g'))];
        assert.equal(bodies.length, 1);
        const hash = createHash('sha256').update(bodies[0][1]).digest('base64');
        assert.ok(policy.includes(`${directive} 'sha256-${hash}'`), `${tag}: ${policy}`);
    }
    assert.ok(!/https?:\/\/|\bsrc=|@import|\burl\(/.test(answer.text), 'an address of somewhere else');
    const [, script] = /<script>([^]*?)<\/script>/.exec(answer.text);
    assert.deepEqual([...script.matchAll(/\b(fetch|import|XMLHttpRequest|WebSocket|eval)\b/g)].map((m) => m[1]), ['fetch']);
    await showPage(gw, script);
});

/** Runs the page's script on a document of a few lines: what it shows holds every path. */
async function showPage(gw, script) {
    const node = (tag) => ({
        tagName: tag.toUpperCase(), textContent: '', className: '', children: [], listeners: {}, open: false,
        append(...more) { this.children.push(...more); },
        replaceChildren(...more) { this.children = more; },
        addEventListener(name, fn) { this.listeners[name] = fn; },
        get lastChild() { return this.children.at(-1); },
        get text() { return this.textContent + this.children.map((c) => c.text).join(' '); },
    });
    const page = node('main');
    const document = { createElement: node, querySelector: () => page };
    const location = { pathname: '/docs', origin: 'http://gateway' };
    const fetched = [];
    const fetch = async (path) => (fetched.push(path), { json: async () => (await request(gw, { path, key: null })).json });
    new Function('document', 'location', 'fetch', script)(document, location, fetch);
    await until(() => page.children.length > 3, 'the page to be shown');
    assert.deepEqual(fetched, ['/openapi.json']);
    const operations = page.children.filter((c) => c.tagName === 'DETAILS');
    assert.ok(operations.length > 30);
    for (const one of operations) {
        one.open = true;
        one.listeners.toggle();
        assert.equal(one.children.length, 2);
    }
    assert.ok(page.text.includes('/admin/api/credentials/{id}/check') && page.text.includes('budget_period'), page.text.slice(0, 300));
}
