// What the operator sees: one access line per exchange, metrics that add up, health.
import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { chat, CLIENT_KEY, request, scenario, startGateway, until } from '../lib/gateway.mjs';
import { play, providerFor, startFakeOpenai } from '../lib/fake_openai.mjs';

const MEMBERS = ['time', 'level', 'module', 'id', 'key', 'method', 'path', 'model', 'provider', 'attempts', 'status', 'bytes_in', 'bytes_out', 'tokens_in', 'tokens_out', 'ttft_ms', 'ms', 'overhead_us', 'outcome'];

async function pair(t, config = {}) {
    const fake = await startFakeOpenai(t);
    const gw = await startGateway(t, { config: { retry: { retries: 0 }, 'provider demo': { type: 'demo' }, 'provider up': providerFor(fake), ...config } });
    return { fake, gw };
}

scenario('the access line of a good answer', async (t) => {
    const { gw } = await pair(t);
    for (const stream of [false, true]) {
        const body = JSON.stringify(chat('m1', 'x', { stream }));
        const answer = await request(gw, { body });
        const line = await gw.accessLine(answer.headers['x-request-id']);
        for (const name of MEMBERS) assert.ok(name in line, `${name} is missing in ${JSON.stringify(line)}`);
        assert.equal(line.method, 'POST');
        assert.equal(line.path, '/v1/chat/completions');
        assert.equal(line.model, 'm1');
        assert.equal(line.provider, 'up');
        assert.equal(line.attempts, 1);
        assert.equal(line.status, 200);
        assert.equal(line.bytes_in, body.length);
        assert.ok(line.bytes_out >= answer.bytes.length, `${line.bytes_out} < ${answer.bytes.length}`);
        assert.equal(line.tokens_in, 11);
        assert.equal(line.tokens_out, 7);
        assert.ok(line.ms >= line.ttft_ms && line.ttft_ms >= 0);
        assert.ok(line.overhead_us >= 0);
        assert.equal(line.outcome, 'ok');
        assert.ok(Math.abs(Date.parse(line.time) - Date.now()) < 60_000, line.time);
    }
});

scenario('one line per exchange, whatever its end', async (t) => {
    const { fake, gw } = await pair(t);
    const ends = [
        [{ body: chat('m1') }, 200],
        [{ body: chat('nonesuch') }, 404],
        [{ body: '{' }, 400],
        [{ body: chat('m1'), key: 'sk-wrong' }, 401],
        [{ path: '/nothing' }, 404],
        [{ path: '/v1/models' }, 200],
    ];
    for (const [options, status] of ends) {
        const answer = await request(gw, options);
        assert.equal(answer.status, status);
        const line = await gw.accessLine(answer.headers['x-request-id']);
        assert.equal(line.status, status);
        assert.equal(line.outcome === 'ok', status === 200, JSON.stringify(line));
    }
    fake.always(play.error(500, 'oops', { type: 'server_error' }));
    const failed = await request(gw, { body: chat('m1') });
    const line = await gw.accessLine(failed.headers['x-request-id']);
    assert.equal(line.status, 502);
    assert.equal(line.attempts, 3);
    const ids = gw.accessLines().map((l) => l.id);
    assert.equal(new Set(ids).size, ids.length, 'an exchange has two lines');
});

scenario('text format: one line per exchange that a person can read', async (t) => {
    const gw = await startGateway(t, { config: { log: { format: 'text', level: 'info' }, 'provider demo': { type: 'demo' } } });
    const { headers } = await request(gw, { body: chat('demo', 'x\ninjected line') });
    await gw.waitLog(new RegExp(headers['x-request-id']));
    const line = gw.output.split('\n').filter((l) => l.includes(headers['x-request-id']));
    assert.equal(line.length, 1, line.join('\n'));
    assert.match(line[0], /demo/);
    assert.match(line[0], /200/);
});

scenario('access = no', async (t) => {
    const gw = await startGateway(t, { config: { log: { access: 'no' }, 'provider demo': { type: 'demo' } } });
    await request(gw, { body: chat('demo') });
    await gw.stop();
    assert.equal(gw.accessLines().length, 0);
});

scenario('odd bytes of a client do not tear the log', async (t) => {
    const gw = await startGateway(t, { config: { 'provider demo': { type: 'demo' } } });
    await request(gw, { path: '/v1/%0d%0a%7b%22level%22:%22error%22%7d?x=%1b[31m' });
    await request(gw, { body: chat('no"such\\model\n\u001b[31m') });
    await until(() => gw.accessLines().length >= 2, 'the access lines');
    for (const line of gw.output.split('\n').filter(Boolean)) {
        if (line.startsWith('{')) JSON.parse(line);
        assert.ok(!/[\u0000-\u0008\u000b-\u001f]/.test(line), JSON.stringify(line));
    }
});

scenario('repeated warnings are limited', async (t) => {
    const { fake, gw } = await pair(t);
    fake.always(play.error(500, 'oops', { type: 'server_error' }));
    for (let i = 0; i < 100; i++) await request(gw, { body: chat('m1') });
    const warnings = gw.logLines().filter((line) => line.module !== 'access' && ['warn', 'error'].includes(line.level));
    assert.ok(warnings.length < 150, `${warnings.length} warnings for 100 requests`);
});

scenario('metrics add up', async (t) => {
    const { fake, gw } = await pair(t);
    for (let i = 0; i < 3; i++) await request(gw, { body: chat('m1') });
    for (let i = 0; i < 2; i++) await request(gw, { body: chat('demo', 'x', { stream: true }) });
    fake.next(play.rateLimited(30));
    await request(gw, { body: chat('m1') });
    const m = await gw.metrics();
    const sum = (name, ...labels) =>
        [...m].filter(([key]) => (key === name || key.startsWith(`${name}{`)) && labels.every((l) => key.includes(l))).reduce((total, [, v]) => total + v, 0);
    assert.equal(sum('chatmux_requests_total', 'provider="up"', 'outcome="ok"'), 4);
    assert.equal(sum('chatmux_requests_total', 'provider="demo"', 'outcome="ok"'), 2);
    assert.equal(sum('chatmux_attempts_total', 'provider="up"'), 5);
    assert.equal(sum('chatmux_attempts_total', 'provider="up"', 'class="rate_limited"'), 1);
    assert.equal(sum('chatmux_tokens_total', 'provider="up"'), 4 * 18);
    assert.equal(sum('chatmux_credentials', 'provider="up"'), 3);
    assert.equal(m.get('chatmux_streams_open'), 0);
    for (const name of ['chatmux_request_seconds_count', 'chatmux_ttft_seconds_count', 'chatmux_rss_bytes', 'chatmux_build_info'])
        assert.ok(sum(name) > 0, name);
    assert.ok([...m.keys()].some((key) => key.startsWith('chatmux_loop_lag_seconds')), 'loop lag');
    const text = (await request(gw, { path: '/metrics' })).text;
    assert.ok(!text.includes(CLIENT_KEY) && !text.includes('sk-up'));
    for (const line of text.split('\n').filter(Boolean)) assert.match(line, /^(# (HELP|TYPE) [a-z_]+ .+|[a-z_]+(\{[^}]*\})? (-?[0-9.e+-]+|[+-]Inf|NaN))$/, line);
});

/** Each with its labels, from the contract: "name{label,label} (values)". */
async function documentedMetrics() {
    const contract = await readFile(new URL('../../docs/contract.md', import.meta.url), 'utf8');
    const list = /^## 6\. .*?^((?: {4}chatmux_[^\n]*\n)+)/ms.exec(contract)[1];
    return new Map([...list.matchAll(/(chatmux_[a-z_]+)(?:\{([a-z,]+)\})?/g)].map(([, name, labels]) => [name, labels?.split(',') ?? []]));
}

scenario('every metric of the contract is there with its labels, and no other', async (t) => {
    const { fake, gw } = await pair(t);
    const documented = await documentedMetrics();
    for (const [name, labels] of Object.entries({
        requests_total: 'surface,provider,model,outcome', request_seconds: 'provider,model', ttft_seconds: 'provider,model', inter_chunk_seconds: 'provider,model', overhead_seconds: 'phase',
        attempts_total: 'provider,class', credentials: 'provider,state', credential_cooldown_seconds: 'provider', tokens_total: 'provider,model,type', cost_usd_total: 'provider,model',
        streams_open: '', queue_depth: 'provider', client_disconnects_total: 'phase', budget_drift_usd: '', log_rows_dropped_total: '', loop_lag_seconds: '', rss_bytes: '', build_info: 'version',
    }))
        assert.equal(documented.get(`chatmux_${name}`)?.join(), labels, name);
    for (const stream of [false, true]) await request(gw, { body: chat('m1', 'x', { stream }) });
    await request(gw, { body: chat('nothing') });
    const { text } = await request(gw, { path: '/metrics' });
    const types = new Map([...text.matchAll(/^# TYPE (\S+) (\S+)$/gm)].map(([, name, type]) => [name, type]));
    assert.deepEqual([...types.keys()].sort(), [...documented.keys()].sort());
    for (const [, sample, given = ''] of text.matchAll(/^([a-z_]+)(?:\{(.*)\})? /gm)) {
        const name = types.has(sample) ? sample : sample.replace(/_(bucket|sum|count)$/, '');
        assert.deepEqual([...given.matchAll(/([a-z]+)="/g)].map(([, label]) => label).filter((label) => label !== 'le'), documented.get(name), sample);
    }
});

scenario('gaps inside of a stream, the phases before it, and how long nobody serves', async (t) => {
    const { fake, gw } = await pair(t, { retry: { retries: 0, max_wait: 0 } });
    const SERIES = '{provider="up",model="m1"}';
    fake.next(play.ok({ pieces: ['one ', 'two ', 'three ', 'four'], gapMs: 60 }));
    await request(gw, { body: chat('m1', 'x', { stream: true }) });
    await request(gw, { body: chat('m1') });
    const first = await gw.metrics();
    assert.equal(first.get(`chatmux_inter_chunk_seconds_count${SERIES}`), 3, 'four pieces; a whole answer has none');
    const sum = first.get(`chatmux_inter_chunk_seconds_sum${SERIES}`);
    assert.ok(sum >= 0.15 && sum < 3, `${sum} s between them`);
    for (const phase of ['parse', 'dispatch']) {
        assert.equal(first.get(`chatmux_overhead_seconds_count{phase="${phase}"}`), 2, phase);
        assert.ok(first.get(`chatmux_overhead_seconds_sum{phase="${phase}"}`) < 1, phase);
    }
    assert.equal(first.get('chatmux_credential_cooldown_seconds{provider="up"}'), 0);
    for (const s of [300, 200, 100]) {
        fake.next(play.rateLimited(s));
        await request(gw, { body: chat('m1') });
        const left = (await gw.metrics()).get('chatmux_credential_cooldown_seconds{provider="up"}');
        assert.ok(left > s - 20 && left <= s, `${left} s of ${s}`);
    }
});

scenario('the log tells why each credential was chosen', async (t) => {
    const { fake, gw } = await pair(t, { auth: { admin_secret: 'admin-secret-0815', keys: [CLIENT_KEY] }, 'model best': { targets: ['up/m1', 'demo/demo'] } });
    const ask = (model, text, turns = 1) =>
        request(gw, { body: { model, messages: [{ role: 'user', content: text }, ...Array.from({ length: turns - 1 }, (_, i) => [{ role: 'assistant', content: `a${i}` }, { role: 'user', content: `b${i}` }]).flat()] } });
    const told = async (answer) => {
        const { attempts } = (await request(gw, { path: `/admin/api/requests/${answer.headers['x-request-id']}`, key: 'admin-secret-0815' })).json;
        return attempts.map(({ credential, result, target_by, chosen, half_open, instead_of, which_was }) => ({ credential, result, target_by, chosen, ...(half_open && { half_open }), ...(instead_of && { instead_of, which_was }) }));
    };
    const [first] = await told(await ask('m1', 'hello'));
    assert.deepEqual([first.target_by, first.chosen, first.result], ['only_one', 'least_recently_used', 'ok']);
    assert.deepEqual(await told(await ask('m1', 'hello', 2)), [{ ...first, chosen: 'conversation' }]);
    fake.next(play.rateLimited(1));
    const [limited, other] = await told(await ask('m1', 'hello', 3));
    assert.deepEqual([limited.credential, limited.chosen, limited.result], [first.credential, 'conversation', 'rate_limited']);
    assert.deepEqual([other.chosen, other.instead_of, other.which_was], ['least_recently_used', first.credential, 'cooling']);
    assert.notEqual(other.credential, first.credential);
    assert.deepEqual((await told(await ask('m1', 'hello', 4)))[0], { ...other, chosen: 'borrowed' });
    await until(async () => (await gw.metrics()).get('chatmux_credentials{provider="up",state="half_open"}') === 1, 'the limit to be over');
    assert.deepEqual(await told(await ask('m1', 'hello', 5)), [{ ...first, chosen: 'conversation', half_open: true }]);

    const behave = play.lockstep(['a']);
    fake.next(behave);
    const busy = ask('m1', 'something else');
    await until(async () => (await request(gw, { path: '/admin/api/providers', key: 'admin-secret-0815' })).json.data.some((p) => p.inflight === 1), 'one in flight');
    assert.match((await told(await ask('m1', 'and another')))[0].chosen, /least_recently_used|least_in_flight/);
    behave.confirm();
    await busy;

    fake.next(play.error(400, 'no', { type: 'invalid_request_error' }));
    fake.always(play.rateLimited(60));
    await ask('m1', 'x');
    const tries = await told(await ask('best', 'y'));
    assert.deepEqual([tries[0].target_by, tries.at(-1).target_by, tries.at(-1).chosen], ['priority', 'next', 'only_one']);
});

scenario('requests that are refused are counted; the log holds those of clients that are known', async (t) => {
    const gw = await startGateway(t, { config: { auth: { admin_secret: 'admin-secret-0815', keys: [CLIENT_KEY] }, 'provider demo': { type: 'demo' } } });
    const admin = (path) => request(gw, { path: `/admin/api${path}`, key: 'admin-secret-0815' });
    const asked = [
        [401, { body: chat('demo'), key: 'sk-wrong' }],
        [401, { body: chat('demo'), key: null }],
        [404, { path: '/v1/nowhere', body: chat('demo') }],
        [405, { path: '/v1/chat/completions', method: 'GET' }],
        [404, { body: chat('no-such-model') }],
        [400, { body: '{"model":' }],
        [400, { body: { model: 'demo' } }],
    ];
    for (const [i, [status, options]] of asked.entries()) {
        const answer = await request(gw, { ...options, headers: { 'x-request-id': `asked-${i}` } });
        assert.equal(answer.status, status, answer.text);
    }
    assert.equal((await request(gw, { path: '/v1/models' })).status, 200);
    assert.equal((await request(gw, { path: '/admin/api/stats', key: 'wrong' })).status, 401);
    assert.equal((await request(gw, { body: chat('demo') })).status, 200);

    const m = await gw.metrics();
    for (const [name, n] of Object.entries({ unauthorized: 2, not_found: 2, method_not_allowed: 1, bad_request: 2 }))
        assert.equal(m.get(`chatmux_refused_total{surface="openai",class="${name}"}`), n, name);
    assert.equal(m.get('chatmux_refused_total{surface="admin",class="unauthorized"}'), 1);
    assert.equal(m.get('chatmux_requests_total{surface="openai",provider="",model="",outcome="error"}'), asked.length);
    assert.ok(![...m.keys()].some((key) => key.includes('no-such-model')));

    const rows = (await admin('/requests')).json.data;
    assert.deepEqual(rows.slice(1).reverse().map((r) => [r.id, r.model, r.status, r.outcome, r.attempt_count, r.credential]), [
        ['asked-4', 'no-such-model', 404, 'error', 0, ''],
        ['asked-5', '', 400, 'error', 0, ''],
        ['asked-6', 'demo', 400, 'error', 0, ''],
    ]);
    const usage = (await admin('/usage?by=key')).json.data;
    assert.deepEqual(usage.map((u) => u.requests), [1], 'what was not asked of a platform is no usage');
});

scenario('streams_open counts what is open', async (t) => {
    const { fake, gw } = await pair(t);
    const behave = play.lockstep(['a', 'b']);
    fake.always(behave);
    const open = request(gw, { body: chat('m1', 'x', { stream: true }) });
    await until(async () => (await gw.metrics()).get('chatmux_streams_open') === 1, 'one open stream');
    behave.confirm();
    behave.confirm();
    await open;
    await until(async () => (await gw.metrics()).get('chatmux_streams_open') === 0, 'no open stream');
});

scenario('health and the front page', async (t) => {
    const { gw } = await pair(t);
    assert.equal((await request(gw, { path: '/healthz', key: null })).status, 200);
    const front = await request(gw, { path: '/', key: null });
    assert.equal(front.status, 200);
    assert.equal(front.text.trim().split('\n').length, 1);
});
