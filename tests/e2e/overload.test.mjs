// Too much: what is new is refused before its body is read, with 503 and a time; what runs goes on.
import assert from 'node:assert/strict';
import { setTimeout as sleep } from 'node:timers/promises';
import { chat, CLIENT_KEY, request, scenario, startGateway, until } from '../lib/gateway.mjs';
import { connect, rawChat, rawRequest, readChatStream } from '../lib/raw.mjs';

const DEMO = { 'provider demo': { type: 'demo', 'x.chunk_ms': 100 } };

async function assertRefused(t, gw, why) {
    const raw = await connect(t, gw);
    raw.send(rawRequest('POST', '/v1/chat/completions', { headers: [`Authorization: Bearer ${CLIENT_KEY}`, 'Content-Type: application/json', 'Content-Length: 1000000'] }));
    const r = await raw.response(); // not a byte of the body was sent
    assert.equal(r.status, 503);
    assert.equal(r.headers['retry-after'], '1');
    assert.match(JSON.parse(r.body).error.message, why);
}

scenario('max_streams', async (t) => {
    const gw = await startGateway(t, { config: { ...DEMO, server: { max_streams: 2 } } });
    const words = Array.from({ length: 30 }, (_, i) => `w${i}`).join(' ');
    const open = await Promise.all(
        [1, 2].map(async () => {
            const raw = await connect(t, gw);
            raw.send(rawChat(chat('demo', words, { stream: true })));
            raw.headOf = await raw.head();
            return raw;
        }),
    );
    await assertRefused(t, gw, /2 streams open/);
    const models = await request(gw, { method: 'GET', path: '/v1/models' });
    assert.equal(models.status, 200, 'questions about the gateway are answered');
    for (const raw of open) {
        assert.equal(readChatStream(await raw.body(raw.headOf)).text, words);
    }
    assert.equal((await request(gw, { body: chat('demo') })).status, 200, 'and then there is room again');
});

scenario('max_lag: while the loop is late what is new is refused, what runs goes on', async (t) => {
    const gw = await startGateway(t, { config: { ...DEMO, server: { max_lag: '20ms' } } });
    const words = Array.from({ length: 30 }, (_, i) => `w${i}`).join(' ');
    let open, head;
    for (let tries = 0; head?.status !== 200; tries++) { // the machine may be busy with other things, and the loop late for that
        assert.ok(tries < 50, `still refused: ${head?.status}`);
        open = await connect(t, gw);
        open.send(rawChat(chat('demo', words, { stream: true })));
        head = await open.head();
        if (head.status !== 200) await sleep(100);
    }

    // All of these are there when the process goes on: one turn of the loop reads them all.
    const body = JSON.stringify({ model: 'nobody-has-it', messages: Array.from({ length: 1500 }, () => ({ role: 'user', content: 'x' })) });
    const crowd = await Promise.all(Array.from({ length: 200 }, () => connect(t, gw)));
    gw.child.kill('SIGSTOP');
    for (const raw of crowd) raw.send(rawChat(body));
    await sleep(300);
    gw.child.kill('SIGCONT');
    await crowd[0].response();
    await assertRefused(t, gw, /more to do than it can/);
    assert.equal(readChatStream(await open.body(head)).text, words);
    await until(async () => (await request(gw, { body: chat('demo') })).status === 200, 'the gateway to have recovered', 6000);
});

scenario('max_memory', async (t) => {
    const gw = await startGateway(t, { config: { ...DEMO, server: { max_memory: '1m' } } });
    await assertRefused(t, gw, /limit of memory/);
    assert.equal((await request(gw, { method: 'GET', path: '/readyz' })).status, 200);
});
