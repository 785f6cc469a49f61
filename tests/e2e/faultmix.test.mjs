// Twenty accounts of which half are in trouble, and what clients see of it (design, section 7); and what a restart remembers.
import assert from 'node:assert/strict';
import { chat, request, sanitized, scenario, startGateway, until } from '../lib/gateway.mjs';
import { connect, rawChat, readChatStream } from '../lib/raw.mjs';
import { play, providerFor, startFakeOpenai } from '../lib/fake_openai.mjs';

const KEYS = Array.from({ length: 20 }, (_, i) => `sk-up-${String(i + 1).padStart(2, '0')}`);

/** 25 % answer 429, 10 % 401, 10 % hang, 10 % cut: one before its first semantic event, one after it. */
function setTrouble(fake) {
    const role = { 'limited': KEYS.slice(0, 5), 'refused': KEYS.slice(5, 7), 'hanging': KEYS.slice(7, 9), 'cut early': [KEYS[9]], 'cut late': [KEYS[10]] };

    for (const key of role.limited) fake.key(key, play.rateLimited(600));
    for (const key of role.refused) fake.key(key, play.badKey());
    for (const key of role.hanging) fake.key(key, play.hang());
    for (const key of role['cut early']) fake.key(key, play.cutBeforeHead());
    for (const key of role['cut late']) fake.key(key, play.cutMidStream({ gapMs: 0 }));
    return role;
}

async function ask(t, gw, n) {
    const raw = await connect(t, gw);

    raw.send(rawChat(chat('m1', `question ${n}`, { stream: true })));
    const head = await raw.head();
    if (head.status !== 200) return 'failed';
    const { bytes } = await raw.drainStream();
    const text = bytes.toString();
    raw.close?.();
    if (text.includes('[DONE]')) return readChatStream(bytes).text === 'Hello from upstream.' ? 'ok' : 'wrong';
    return text.includes('"error"') ? 'cut, told' : 'cut, silent';
}

scenario('the fault mix: clients hardly notice', { timeout: 240_000 }, async (t) => {
    const total = sanitized ? 1000 : 5000;
    const fake = await startFakeOpenai(t, { keys: KEYS });
    const gw = await startGateway(t, {
        config: {
            log: { level: 'warn', access: 'no' },
            upstream: { connect_timeout: '2s', first_token_timeout: '2s', idle_timeout: '2s' },
            retry: { credentials: 16 },
            'provider up': { ...providerFor(fake), credentials: KEYS },
        },
    });
    const role = setTrouble(fake);
    const seen = {};
    let begun = 0;

    const client = async () => {
        while (begun < total) {
            const outcome = await ask(t, gw, begun++);
            seen[outcome] = (seen[outcome] ?? 0) + 1;
        }
    };
    await Promise.all(Array.from({ length: 32 }, client));

    const cuts = seen['cut, told'] ?? 0;
    assert.equal(seen['cut, silent'] ?? 0, 0, 'a stream ended without a word');
    assert.equal(seen.wrong ?? 0, 0, 'an answer that is not the upstream’s');
    assert.ok(cuts <= 3 * role['cut late'].length + 32, `${cuts} cuts after the first event`); // + those in flight when it is found out
    const success = (seen.ok ?? 0) / (total - cuts);
    assert.ok(success >= 0.999, `${JSON.stringify(seen)}: ${(success * 100).toFixed(2)} %`);
    for (const key of role.refused) {
        const tries = fake.requests.filter((r) => r.key === key).length;
        assert.ok(tries <= 32, `${key} was tried ${tries} times`); // at most what was in flight when it was refused
    }
    for (const key of role.limited) assert.ok(fake.requests.filter((r) => r.key === key).length <= 32, `${key} is limited for ten minutes`);
});

scenario('a dead credential is not tried twice, one request after the other', async (t) => {
    const fake = await startFakeOpenai(t, { keys: KEYS });
    const gw = await startGateway(t, { config: { upstream: { first_token_timeout: '1s', response_timeout: '1s' }, retry: { credentials: 16 }, 'provider up': { ...providerFor(fake), credentials: KEYS } } });
    const role = setTrouble(fake);

    for (let i = 0; i < 60; i++) await request(gw, { body: chat('m1', `q${i}`) }).catch(() => {});
    for (const key of [...role.refused, ...role.limited]) assert.ok(fake.requests.filter((r) => r.key === key).length <= 1, key);
});

scenario('a restart remembers who is limited and who was refused', async (t) => {
    const keys = ['sk-up-1', 'sk-up-2', 'sk-up-3'];
    const fake = await startFakeOpenai(t, { keys });
    const config = { retry: { retries: 0 }, 'provider up': { ...providerFor(fake), credentials: keys } };
    const gw = await startGateway(t, { config });

    fake.key('sk-up-1', play.rateLimited(600));
    fake.key('sk-up-2', play.badKey());
    for (let i = 0; i < 3; i++) assert.equal((await request(gw, { body: chat('m1', `q${i}`) })).status, 200);
    await until(() => fake.requests.filter((r) => r.key !== 'sk-up-3').length === 2, 'both to be found out');
    const before = fake.requests.length;
    await gw.restart();
    for (let i = 0; i < 4; i++) assert.equal((await request(gw, { body: chat('m1', `r${i}`) })).status, 200);
    assert.deepEqual([...new Set(fake.requests.slice(before).map((r) => r.key))], ['sk-up-3']);
});
