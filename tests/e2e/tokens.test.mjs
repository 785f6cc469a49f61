// Access tokens that are given once: what is on the disk when the process dies, when the disk refuses, when two of us share it.
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { setTimeout as sleep } from 'node:timers/promises';
import { chat, request, scenario, startGateway, until } from '../lib/gateway.mjs';
import { FIREBASE_KEY, startFakeAlexSidebar } from '../lib/fake_alexsidebar.mjs';

const ADMIN = 'admin-secret-0815';
const config = (fake, more = {}) => ({
    auth: { admin_secret: ADMIN },
    retry: { retries: 0 },
    'provider alex': { type: 'alexsidebar', base_url: fake.base, 'x.token_url': fake.base, 'x.firebase_key': FIREBASE_KEY, monthly_limit: 0, credentials: fake.credentials },
    ...more,
});

/** Every token call brings another refresh token, and the platform wants the one before never again. */
async function pair(t, fakeOptions = {}, more = {}) {
    const fake = await startFakeAlexSidebar(t, { accounts: ['one'], rotate: true, ...fakeOptions });
    return { fake, gw: await startGateway(t, { config: config(fake, more) }) };
}

/** The request's id, which its access line has. */
const serves = async (gw) => {
    const answer = await request(gw, { body: chat('o1') });
    assert.equal(answer.status, 200, answer.text);
    return answer.headers['x-request-id'];
};
const credentials = async (gw) => (await request(gw, { path: '/admin/api/credentials', key: ADMIN })).json.data;
const startAgain = async (gw) => {
    await gw.exited;
    while (!(await gw.tryStart()));
};
/** As another program that has the database would hold it. */
const lock = (gw) => {
    const db = new DatabaseSync(join(gw.dir, 'state', 'chatmux.db'));
    db.exec('BEGIN IMMEDIATE');
    return () => (db.exec('ROLLBACK'), db.close());
};

scenario('kill -9 between the answer of a refresh and its use: the new token is used, the old one never again', async (t) => {
    const { fake, gw } = await pair(t);
    let served = await serves(gw);
    for (let round = 0; round < 12; round++) {
        fake.expire();
        const before = fake.tokens.length;
        if (round % 2 === 0) {
            // At its first use: then it has to be on the disk, also when that takes its time.
            const unlock = lock(gw);
            setTimeout(unlock, round * 50);
            fake.next(async () => (gw.signal('SIGKILL'), gw.exited));
            await assert.rejects(request(gw, { body: chat('o1') }));
        } else {
            // As soon as the gateway knows it, whether somebody uses it or not.
            await until(() => gw.output.includes(served), 'the log to be read up to the last answer'); // or an older refresh is taken for this one
            const known = gw.output.length;
            request(gw, { body: chat('o1') }).catch(() => {});
            await until(() => gw.output.indexOf('-> ok: refreshed', known) > 0, 'the refresh to be over');
            gw.signal('SIGKILL');
        }
        assert.equal(fake.tokens.length, before + 1);
        await startAgain(gw);
        served = await serves(gw); // it may have been on the disk that a refresh is under way: then there is another, with the new refresh token
        assert.deepEqual(fake.refusals, [], 'an old refresh token was shown');
    }
    fake.expire();
    await serves(gw);
});

scenario('SIGTERM while a token is on its way: it is waited for', async (t) => {
    const { fake, gw } = await pair(t, { lifeS: 10 });
    await serves(gw);
    fake.tokenDelayMs = 1000;
    await until(() => fake.accounts[0].refreshing, 'the token to be renewed ahead of its end', 9000);
    await gw.stop();
    assert.equal(fake.accounts[0].tokens, 2);
    fake.tokenDelayMs = 0;
    await startAgain(gw);
    fake.expire();
    await serves(gw);
});

scenario('the disk refuses a token: it is used all the same, and written as soon as it can be', async (t) => {
    const { fake, gw } = await pair(t);
    await serves(gw);
    const unlock = lock(gw);
    fake.expire();
    await serves(gw);
    await gw.waitLog(/is not on the disk yet, and lost if the process ends now: .*locked by another program/);
    assert.match((await request(gw, { path: '/readyz' })).text, /ready, degraded: .*locked/);
    unlock();
    await gw.waitLog(/the token of credential \d+ is on the disk now/, 'the token to be written', 10_000);
    gw.signal('SIGKILL');
    await startAgain(gw);
    await serves(gw);
    fake.expire();
    await serves(gw);
});

scenario('the disk refuses a token until the end: the last chance is taken', async (t) => {
    const { fake, gw } = await pair(t);
    await serves(gw);
    const unlock = lock(gw);
    fake.expire();
    await serves(gw);
    unlock();
    await gw.stop();
    await startAgain(gw);
    fake.expire();
    await serves(gw);
});

scenario('two of us on one store: a refused token is looked for on the disk before the account is given up', async (t) => {
    const { fake, gw: first } = await pair(t, { strict: false });
    await serves(first);
    const second = await startGateway(t, { name: 'second', config: config(fake, { store: { state_dir: join(first.dir, 'state') } }) });
    await serves(second);
    assert.equal(fake.tokens.length, 1, 'the second has the token of the first');
    for (const [one, other] of [[first, second], [second, first], [second, first]]) {
        const refused = fake.refusals.length;
        fake.expire();
        await serves(one);
        await serves(other);
        assert.deepEqual(fake.refusals.slice(refused).map((r) => r.what), ['INVALID_REFRESH_TOKEN'], 'the old one was asked for once');
        await other.waitLog(/the disk has a newer token/);
        assert.equal((await credentials(other))[0].state, 'ok');
    }
    // And when there is none, the account is given up.
    fake.expire();
    fake.account('one').refresh = 'gone';
    assert.equal((await request(first, { body: chat('o1') })).status, 502);
    assert.deepEqual((await credentials(first)).map((c) => [c.state, c.reason]), [['needs_login', 'invalid_credential']]);
});

scenario('an operator’s changes and refreshes at once: neither undoes the other', async (t) => {
    const { fake, gw } = await pair(t);
    await serves(gw);
    const [{ id }] = await credentials(gw);
    for (let round = 0; round < 15; round++) {
        fake.expire();
        const slow = round % 5 === 1;
        if (slow) setTimeout(lock(gw), 400);
        const [answer, ...changes] = await Promise.all([
            request(gw, { body: chat('o1') }),
            ...(slow ? [0] : [0, 1, 2]).map(async (i) => {
                // Slow: while the new token waits for the disk.
                if (slow) await until(() => fake.accounts[0].access.size > 0, 'the token to be given').then(() => sleep(30)); // one alone: the next would mend it
                else await sleep(round % 5);
                return request(gw, { method: 'PATCH', path: `/admin/api/credentials/${id}`, key: ADMIN, body: { label: `label ${round}`, weight: i + 1 } });
            }),
        ]);
        assert.equal(answer.status, 200, answer.text);
        for (const change of changes) assert.equal(change.status, 200, change.text);
        if (round % 5 < 3) gw.signal('SIGHUP');
        await serves(gw);
        if (slow || round % 5 === 4) {
            gw.signal('SIGKILL');
            await startAgain(gw);
            assert.equal((await credentials(gw))[0].label, `label ${round}`);
            await serves(gw);
        }
    }
});
