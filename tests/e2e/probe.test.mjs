// chatmux probe: a person sees what is sent to a platform, what comes back and what of it was not understood; never a secret.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import http from 'node:http';
import { atEnd, binary, cleanEnv, scenario, startGateway } from '../lib/gateway.mjs';

const ADMIN = 'admin-secret-4711';
const KEYS = ['sk-first-11112222', 'sk-second-33334444'];

/** An OpenAI-compatible server that answers with `page(req, body)`: [status, type, text]. */
async function startServer(t, page) {
    const server = http.createServer(async (req, res) => {
        let body = '';
        for await (const piece of req) body += piece;
        const [status, type, text] = page(req, body);
        res.writeHead(status, { 'content-type': type }).end(text);
    });
    await new Promise((done) => server.listen(0, '127.0.0.1', done));
    atEnd(t, () => server.close());
    return `http://127.0.0.1:${server.address().port}/v1`;
}

async function setUp(t, page) {
    const base = await startServer(t, page);
    const gw = await startGateway(t, {
        config: { auth: { admin_secret: ADMIN, keys: ['sk-client-1'] }, 'provider up': { type: 'openai', base_url: base, models: ['m1', 'm2'], credentials: KEYS }, 'provider demo': { type: 'demo' } },
    });
    const probe = (...args) =>
        new Promise((done) => {
            const child = spawn(binary, ['probe', ...args, '-c', gw.file], { cwd: gw.dir, env: cleanEnv(gw.dir), stdio: ['ignore', 'pipe', 'pipe'] });
            let out = '';
            for (const stream of [child.stdout, child.stderr]) stream.setEncoding('utf8').on('data', (text) => (out += text));
            child.once('close', (code) => done({ code, out }));
        });
    return { gw, base, probe };
}

const stream = (...events) => [200, 'text/event-stream', events.map((e) => `data: ${e}\n\n`).join('')];
const delta = (content) => JSON.stringify({ id: 'c', object: 'chat.completion.chunk', choices: [{ index: 0, delta: { content }, finish_reason: null }] });
const stop = JSON.stringify({ id: 'c', object: 'chat.completion.chunk', choices: [{ index: 0, delta: {}, finish_reason: 'stop' }] });

scenario('every step of a question that is answered', async (t) => {
    const asked = [];
    const { probe, base } = await setUp(t, (req, body) => {
        asked.push({ key: req.headers.authorization, ...JSON.parse(body) });
        return stream(delta('Hello.'), stop, '[DONE]');
    });
    const r = await probe('up');
    assert.equal(r.code, 0, r.out);
    assert.match(r.out, /^up \(type openai\), credential up#1, chat with m1$/m);
    assert.ok(r.out.includes(`POST ${base}/chat/completions`), r.out);
    assert.match(r.out, /^ +\d+ ms +HEAD +in \w+, status 200$/m);
    assert.match(r.out, /Hello\./);
    assert.match(r.out, /^it works \(\d+ ms\)$/m);
    assert.deepEqual([asked[0].model, asked[0].messages.length, asked[0].key], ['m1', 1, `Bearer ${KEYS[0]}`]);

    const other = await probe('up', '--credential', 'up#2', '--model', 'm2', '--question', 'Which day?', '--json');
    const told = JSON.parse(other.out);
    assert.deepEqual([told.ok, told.credential, told.model, asked[1].key, asked[1].messages[0].content], [true, 'up#2', 'm2', `Bearer ${KEYS[1]}`, 'Which day?']);
    assert.ok(told.steps.some((s) => s.what === 'ask' && s.text.includes('/chat/completions') && s.piece.includes('Which day?')));
});

scenario('a platform that has changed: its own words are shown, the account in them is not', async (t) => {
    const { probe, gw } = await setUp(t, (req) => [403, 'application/json', JSON.stringify({ surprise: `who is ${req.headers.authorization}?` })]);
    const r = await probe('up');
    assert.equal(r.code, 1, r.out);
    assert.match(r.out, /status 403/);
    assert.match(r.out, /surprise/);
    assert.match(r.out, /^it does not work: .*\(\w+, \d+ ms\)$/m);
    assert.ok(!r.out.includes(KEYS[0]) && !r.out.includes('first-1111'), r.out);
    const list = await (await fetch(`${gw.url}/admin/api/credentials`, { headers: { authorization: `Bearer ${ADMIN}` } })).json();
    assert.deepEqual(
        list.data.filter((c) => c.provider === 'up').map((c) => [c.state, c.requests]),
        [
            ['ok', 0],
            ['ok', 0],
        ],
        'looking changes nothing',
    );
});

scenario('other flows, and questions that cannot be asked', async (t) => {
    const { probe } = await setUp(t, () => [200, 'application/json', JSON.stringify({ object: 'list', data: [{ id: 'a' }, { id: 'b' }] })]);
    const models = await probe('up', '--flow', 'models');
    assert.equal(models.code, 0, models.out);
    assert.match(models.out, /^models: 2$/m);
    assert.equal((await probe('demo')).code, 0);
    for (const [args, why] of [
        [['nobody'], /there is no provider "nobody"/],
        [['up', '--flow', 'refresh'], /the adapter openai has no flow "refresh"/],
        [['up', '--flow', 'dance'], /flow/],
        [['up', '--credential', '4711'], /no credential 4711/],
        [['up', '--model', 'm3'], /m3/],
        [[], /it takes the name of a provider/],
    ]) {
        const r = await probe(...args);
        assert.equal(r.code, 1, r.out);
        assert.match(r.out, why);
    }
});
