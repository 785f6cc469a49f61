// Realtime sessions: /v1/realtime, relayed both ways.
import assert from 'node:assert/strict';
import { scenario, startGateway, until } from '../lib/gateway.mjs';
import { startFakeRealtime } from '../lib/fake_realtime.mjs';
import { acceptFor, CLOSE, connectRealtime } from '../lib/websocket.mjs';

async function start(t, { fake: fakeOptions = {}, provider = {}, ...config } = {}) {
    const fake = await startFakeRealtime(t, fakeOptions);
    const gw = await startGateway(t, { config: { 'provider up': fake.provider(provider), ...config } });
    return { fake, gw };
}

scenario('a session of text: what each side says reaches the other as it is', async (t) => {
    const { fake, gw } = await start(t);
    const c = await connectRealtime(t, gw);
    assert.equal(c.answer.status, 101);
    assert.equal(c.answer.headers['sec-websocket-accept'], acceptFor(c.nonce));
    assert.equal((await c.message()).json.type, 'session.created');
    c.event({ type: 'response.create' });
    const types = [];
    while (types.at(-1) !== 'response.done') types.push((await c.message()).json.type);
    assert.deepEqual(types, ['response.created', 'response.output_text.delta', 'response.output_text.delta', 'response.output_text.done', 'response.done']);
    c.close(4001, 'bye');
    const end = await c.message();
    assert.deepEqual([end.op, end.code, end.reason], [CLOSE, 4001, 'bye']);
    assert.deepEqual(await fake.sessions[0].closed, { code: 4001, reason: 'bye' });
    await c.closed;
    assert.deepEqual(fake.problems, []);
});
