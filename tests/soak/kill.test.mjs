// kill -9 at random moments while an operator changes things: what was acknowledged is there afterwards, and what is counted agrees: the log with the ledger,
// the ledger with what keys have spent, and accounts with the ledger as far as they can.
//   ROUNDS=100   how often   SEED=n   the same moments again
import assert from 'node:assert/strict';
import { setTimeout as sleep } from 'node:timers/promises';
import { chat, CLIENT_KEY, request, scenario, startGateway } from '../lib/gateway.mjs';
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
    const fake = await startFakeOpenai(t, { keys: ['sk-up-1', 'sk-up-2'] });
    const config = {
        auth: { admin_secret: SECRET },
        log: { level: 'warn', access: 'no' },
        'provider up': providerFor(fake),
        'provider spare': providerFor(fake, { credentials: null, models: 'nobody-asks-for-it' }),
        'price m1': { input: 1, output: 1000 },
    };
    const gw = await startGateway(t, { config });
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
    let asked = 0;
    const ask = async (key) => {
        for (;; asked++) await request(gw, { body: chat('m1'), key });
    };

    const team = (await admin('POST', '/keys', { name: 'team', budget_usd: 1_000_000, budget_period: 'total' })).json;
    const usage = async (by) => (await admin('GET', `/usage?by=${by}`)).json.data;
    const total = (groups) => groups.reduce((sum, group) => sum + group.requests, 0);
    /** id of each account in use -> {attempts: as it counts itself, rows: as the ledger does}. */
    const figures = async () => {
        const ledger = await usage('credential');
        const accounts = (await admin('GET', '/credentials?provider=up')).json.data;
        return new Map(accounts.map(({ id, requests }) => [id, { attempts: requests, rows: total(ledger.filter((group) => group.id === id)) }]));
    };
    let before = await figures();
    assert.equal(before.size, 2);

    // Accounts count in the pool's file, requests are in the day's: a group is written to one after the other, and kill -9 comes between, too. Then attempts are
    // counted whose rows are lost: no more than were made since the start before. A row may be a moment ahead of its attempt's count, one for each who asks.
    const checkFigures = async (round, askers) => {
        const spent = (await admin('GET', `/keys/${team.id}`)).json.spent_usd;
        const [byKey, byModel, now] = [await usage('key'), await usage('model'), await figures()];
        assert.equal(spent, byKey.find((group) => group.id === team.id)?.cost_usd ?? 0, `round ${round}: what the key has spent is not what the ledger says`);
        assert.equal(total(byKey), total(byModel), `round ${round}: the ledger's parts disagree`);
        for (const [id, { attempts, rows }] of now) {
            const more = { attempts: attempts - before.get(id).attempts, rows: rows - before.get(id).rows };
            const what = `round ${round}: account ${id} counts ${more.attempts} attempts and the ledger ${more.rows} requests more than before, of ${asked}`;
            assert.ok(more.attempts >= 0 && more.rows >= 0, what);
            assert.ok(more.attempts - more.rows <= asked && more.rows - more.attempts <= askers, what);
        }
        before = now;
        asked = 0;
        return spent;
    };

    for (let round = 0; round < ROUNDS; round++) {
        const work = Promise.allSettled([operate(), operate(), ask(CLIENT_KEY), ask(team.key)]);
        await sleep(20 + next() * 480); // what is counted reaches the disk every 250 ms
        await gw.restart({ how: 'SIGKILL' });
        await work;
        asked += 2; // those that the kill interrupted
        await checkFigures(round, 2);
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

    // Left in peace everything agrees to the last one.
    const peaceful = 10;
    for (let i = 0; i < peaceful; i++) await request(gw, { body: chat('m1'), key: team.key });
    await gw.restart();
    const then = before;
    assert.ok((await checkFigures('the last', 0)) > 0);
    let counted = { attempts: 0, rows: 0 };
    for (const [id, { attempts, rows }] of before)
        counted = { attempts: counted.attempts + attempts - then.get(id).attempts, rows: counted.rows + rows - then.get(id).rows };
    assert.deepEqual(counted, { attempts: peaceful, rows: peaceful });

    const rows = new Map();
    for (let cursor = ''; cursor !== null; ) {
        const page = (await admin('GET', `/requests?limit=500${cursor && `&cursor=${cursor}`}`)).json;
        for (const row of page.data) rows.set(row.credential_id, (rows.get(row.credential_id) ?? 0) + 1);
        cursor = page.next;
    }
    const ledger = await usage('credential');
    assert.ok(total(ledger) > ROUNDS, `${total(ledger)} requests`);
    assert.deepEqual(new Map(ledger.map((group) => [group.id, group.requests]).sort()), new Map([...rows].sort()), 'the ledger and the log disagree');
});
