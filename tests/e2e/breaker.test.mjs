// The breaker of one account with one model: that account gets no more requests for it, serves its other models, and others serve this one.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { binary, chat, cleanEnv, CLIENT_KEY, request, scenario, startGateway, until } from '../lib/gateway.mjs';
import { play, providerFor, startFakeOpenai } from '../lib/fake_openai.mjs';

const ADMIN = 'admin-secret-4711';

scenario('an account that fails for one model only keeps serving the others', async (t) => {
    const fake = await startFakeOpenai(t, { keys: ['sk-up-1', 'sk-up-2'] });
    const gw = await startGateway(t, {
        config: {
            auth: { admin_secret: ADMIN, keys: [CLIENT_KEY] },
            retry: { retries: 0 },
            'provider up': { ...providerFor(fake), models: ['m1', 'm2'], breaker_account_attempts: 4 },
        },
    });
    const admin = async (path) => (await fetch(`${gw.url}/admin/api${path}`, { headers: { authorization: `Bearer ${ADMIN}` } })).json();
    const asked = (key, model) => fake.requests.filter((r) => r.key === key && r.json.model === model).length;
    const answer = async (model) => {
        const r = await request(gw, { body: chat(model), headers: { 'x-request-id': `last-${model}` } });
        assert.equal(r.status, 200, r.text);
    };
    const [ok, down] = [play.ok(), play.error(503, 'this model is down', { type: 'server_error' })];
    fake.key('sk-up-1', (rec) => (rec.json.model === 'm2' ? down : ok)(rec));

    for (let i = 0; i < 30; i++) await answer(i % 3 ? 'm2' : 'm1'); // an odd pattern: both accounts get both
    assert.equal(asked('sk-up-1', 'm2'), 4, 'the breaker opens at four failures of four attempts');
    assert.equal(asked('sk-up-2', 'm2'), 20, 'each was answered by the other account');
    assert.ok(asked('sk-up-1', 'm1') >= 3, 'its other model is served');
    const before = asked('sk-up-1', 'm1');
    for (let i = 0; i < 6; i++) await answer('m1');
    assert.equal(asked('sk-up-1', 'm1'), before + 3, 'its share of them');

    const [one, two] = (await admin('/credentials')).data;
    assert.deepEqual([one.state, two.state, two.models], ['ok', 'ok', []]);
    assert.equal(one.models.length, 1);
    const { until: at, ...told } = one.models[0];
    assert.deepEqual(told, { model: 'm2', state: 'open', attempts: 0, failed: 0 });
    assert.ok(Date.parse(at) - Date.now() < 30_000 && Date.parse(at) > Date.now());

    const metrics = await request(gw, { path: '/metrics', method: 'GET' });
    assert.match(metrics.text, /^chatmux_credential_models\{provider="up",state="open"\} 1$/m);
    assert.match(metrics.text, /^chatmux_credential_models\{provider="up",state="half_open"\} 0$/m);
    assert.match(metrics.text, /^chatmux_breaker_state\{provider="up"\} 0$/m);

    const explain = (...args) =>
        new Promise((done) => {
            const child = spawn(binary, ['explain', ...args, '-c', gw.file], { cwd: gw.dir, env: cleanEnv(gw.dir), stdio: ['ignore', 'pipe', 'inherit'] });
            let out = '';
            child.stdout.setEncoding('utf8').on('data', (text) => (out += text));
            child.once('close', () => done(out));
        });
    const plan = JSON.parse(await explain('--dry-run', '--json', 'model=m2')).targets[0];
    assert.deepEqual(plan.credentials.map((c) => [c.label, c.model_state, c.chosen]), [
        ['up#1', 'open', false],
        ['up#2', null, true],
    ]);
    assert.match(await explain('--dry-run', 'model=m2'), /^ +up#1 +ok .* open$/m);

    // What the log tells of a request that could not be served says why the other was passed over.
    fake.key('sk-up-2', play.rateLimited(60));
    const limited = await request(gw, { body: chat('m2'), headers: { 'x-request-id': 'nobody-left' } });
    assert.equal(limited.status, 429);
    assert.ok(Number(limited.headers['retry-after']) <= 30, 'when the breaker lets one through');
    await until(async () => (await admin('/requests/nobody-left')).id);
    const { others } = await admin('/requests/nobody-left');
    assert.deepEqual(others.map((o) => [o.credential, o.reason]), [
        ['up#1', 'breaker of this model'],
        ['up#2', 'rate_limited'],
    ]);

    // A reset forgets it: the next one is asked again.
    await fetch(`${gw.url}/admin/api/credentials/${one.id}/reset`, { method: 'POST', headers: { authorization: `Bearer ${ADMIN}` } });
    fake.key('sk-up-1', ok);
    await answer('m2');
    assert.equal(asked('sk-up-1', 'm2'), 5);
    assert.deepEqual((await admin(`/credentials/${one.id}`)).models, []);
});

scenario('an account that is limited for one model keeps serving the others', async (t) => {
    const fake = await startFakeOpenai(t, { keys: ['sk-up-1'] });
    const gw = await startGateway(t, {
        config: {
            auth: { admin_secret: ADMIN, keys: [CLIENT_KEY] },
            retry: { retries: 0, max_wait: '50ms' },
            'provider up': { ...providerFor(fake), models: ['gpt-1', 'gpt-2', 'gpt-2-mini'] },
        },
    });
    const asked = (model) => fake.requests.filter((r) => r.json.model === model);
    const status = async (model) => (await request(gw, { body: chat(model) })).status;
    const limits = { 'gpt-1': 60, 'gpt-2': 1 };
    const ok = play.ok();
    fake.key('sk-up-1', (rec) => {
        const { model } = rec.json;
        const limit = play.error(429, `Rate limit reached for ${model} in organization org-1 on tokens per min (TPM)`, { code: 'rate_limit_exceeded' }, { 'retry-after': String(limits[model]) });
        return (limits[model] ? limit : ok)(rec);
    });

    for (let i = 0; i < 3; i++) {
        const refused = await request(gw, { body: chat('gpt-1') });
        assert.equal(refused.status, 429);
        assert.equal(refused.json.error.code, 'rate_limit_exceeded');
        const seconds = Number(refused.headers['retry-after']);
        assert.ok(seconds > 50 && seconds <= 60, `retry-after ${seconds}`);
        assert.equal(await status('gpt-2-mini'), 200);
    }
    assert.equal(asked('gpt-1').length, 1, 'none before its time');

    const told = await fetch(`${gw.url}/admin/api/credentials`, { headers: { authorization: `Bearer ${ADMIN}` } });
    const [one] = (await told.json()).data;
    assert.equal(one.state, 'ok');
    assert.deepEqual(one.models.map((m) => [m.model, m.state]), [['gpt-1', 'rate_limited']]);
    const metrics = await request(gw, { path: '/metrics', method: 'GET' });
    assert.match(metrics.text, /^chatmux_credential_models\{provider="up",state="rate_limited"\} 1$/m);

    assert.equal(await status('gpt-2'), 429);
    delete limits['gpt-2'];
    await until(async () => (await status('gpt-2')) === 200);
    const [first, second] = asked('gpt-2');
    assert.ok(second.at - first.at >= 1000, `asked again after ${second.at - first.at} ms`);
});
