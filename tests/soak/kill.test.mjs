// kill -9 at random moments while an operator changes things: what was acknowledged is there afterwards, and the ledger agrees with the log.
//   ROUNDS=100   how often   SEED=n   the same moments again
import assert from 'node:assert/strict';
import { setTimeout as sleep } from 'node:timers/promises';
import { chat, request, scenario, startGateway } from '../lib/gateway.mjs';
import { providerFor, startFakeOpenai } from '../lib/fake_openai.mjs';

const ROUNDS = Number(process.env.ROUNDS ?? 100);
const SEED = Number(process.env.SEED ?? Date.now() % 1_000_000);
const SECRET = 'adm-secret-of-the-kill-test';

/** mulberry32: small, seedable. */
function random(seed) {
    return () => {
        seed = (seed + 0x6d2b79f5) | 0;
        let t = Math.imul(seed ^ (seed >>> 15), 1 | seed);
        t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
        return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
    };
}

scenario(`kill -9, ${ROUNDS} times (SEED=${SEED})`, { timeout: 20 * 60_000 }, async (t) => {
    const next = random(SEED);
    const fake = await startFakeOpenai(t, { keys: ['sk-up-1'] });
    const gw = await startGateway(t, { config: { auth: { admin_secret: SECRET }, log: { level: 'warn', access: 'no' }, 'provider up': providerFor(fake), 'provider spare': providerFor(fake, { credentials: null, models: 'nobody-asks-for-it' }) } });
    const admin = (method, path, body) => request(gw, { path: `/admin/api${path}`, method, body, key: SECRET });
    const there = new Map(); // id -> label, as acknowledged
    const gone = new Set();
    const unsure = new Set(); // asked for, and nobody knows whether it was done
    let serial = 0;

    const operate = async () => {
        for (;;) {
            const roll = next();
            const ids = [...there.keys()].filter((id) => !unsure.has(id));
            const id = ids[Math.floor(next() * ids.length)];
            if (roll < 0.5 || id === undefined) {
                const label = `account ${++serial}`;
                const answer = await admin('POST', '/credentials', { provider: 'spare', secret: `sk-up-made-${SEED}-${serial}`, label });
                if (answer.status === 201) there.set(answer.json.id, label);
            } else if (roll < 0.8) {
                const label = `renamed ${++serial}`;
                unsure.add(id);
                const answer = await admin('PATCH', `/credentials/${id}`, { label });
                if (answer.status === 200) there.set(id, label);
                unsure.delete(id);
            } else {
                unsure.add(id);
                const answer = await admin('DELETE', `/credentials/${id}`);
                if (answer.status === 200) {
                    there.delete(id);
                    gone.add(id);
                }
                unsure.delete(id);
            }
        }
    };
    const ask = async () => {
        for (;;) await request(gw, { body: chat('m1') });
    };

    for (let round = 0; round < ROUNDS; round++) {
        const work = Promise.allSettled([operate(), operate(), ask(), ask()]);
        await sleep(20 + next() * 280);
        await gw.restart({ how: 'SIGKILL' });
        await work;
        const listed = new Map();
        for (let cursor = ''; cursor !== null; ) {
            const page = (await admin('GET', `/credentials?limit=500${cursor && `&cursor=${cursor}`}`)).json;
            for (const c of page.data) listed.set(c.id, c.label);
            cursor = page.next;
        }
        for (const [id, label] of there) {
            if (unsure.has(id)) continue;
            assert.equal(listed.get(id), label, `round ${round}: an acknowledged change of ${id} is lost`);
        }
        for (const id of gone) assert.ok(!listed.has(id), `round ${round}: ${id} is back`);
        for (const id of unsure) {
            if (listed.has(id)) there.set(id, listed.get(id));
            else there.delete(id);
        }
        unsure.clear();
    }

    const usage = (await admin('GET', '/usage?by=model')).json.data;
    let rows = 0;
    for (let cursor = ''; cursor !== null; ) {
        const page = (await admin('GET', `/requests?limit=500${cursor && `&cursor=${cursor}`}`)).json;
        rows += page.data.length;
        cursor = page.next;
    }
    assert.ok(rows > ROUNDS, `${rows} rows`);
    assert.equal(usage.reduce((sum, u) => sum + u.requests, 0), rows, 'the ledger and the log disagree');
});
