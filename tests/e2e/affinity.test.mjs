// A conversation stays with its account: what names it, which name counts when a request has several, and whose it is.
//
// With three accounts and one request at a time, a request that no conversation binds goes to the account that was idle longest: never to the one that
// served just now. So whatever goes there follows a conversation.
import assert from 'node:assert/strict';
import { chat, CLIENT_KEY, request, scenario, startGateway } from '../lib/gateway.mjs';
import { providerFor, startFakeOpenai } from '../lib/fake_openai.mjs';

const ADMIN = 'adm-secret-of-the-affinity-test';
const OTHER_KEY = 'sk-test-other-key-4712';

async function start(t, { keys = [CLIENT_KEY] } = {}) {
    const fake = await startFakeOpenai(t, { allow: ['conversation_id', 'conversation'] });
    const config = { auth: { keys, admin_secret: ADMIN }, 'provider up': providerFor(fake) };
    const gw = await startGateway(t, { config });
    const send = async (options) => {
        const { length } = fake.requests;
        const answer = await request(gw, options);
        assert.equal(answer.status, 200, answer.text);
        assert.equal(fake.requests.length, length + 1);
        return { account: fake.last.key, answer };
    };
    const admin = async (path, body) => (await request(gw, { path: `/admin/api${path}`, method: 'POST', body, key: ADMIN })).json;
    return { gw, config, send, admin };
}

// What names a conversation, in the order in which it counts. With `value` a kind makes the request's first turn (`turn` 0) or a later one.
const header = (name) => ({ name, of: (value) => ({ headers: { [name]: value } }) });
const member = (name) => ({ name, of: (value) => ({ more: { [name]: value } }) });
const KINDS = [
    ...['x-chatmux-session', 'x-claude-code-session-id', 'session_id', 'conversation_id', 'x-session-affinity', 'x-session-id', 'x-openwebui-chat-id'].map(header),
    member('prompt_cache_key'),
    member('conversation_id'),
    member('conversation'),
    { name: 'first messages', of: (value, turn) => ({ messages: [{ role: 'user', content: value }, ...(turn > 0 ? said(turn) : [])] }) },
];

const said = (turn) => [
    { role: 'assistant', content: `answer ${turn}` },
    { role: 'user', content: `question ${turn}` },
];

let serial = 0;

/** A chat that says all of `parts`; what they do not say is unlike that of any other. */
function asking(...parts) {
    const { headers, more, messages } = parts.reduce((all, part) => ({ headers: { ...all.headers, ...part.headers }, more: { ...all.more, ...part.more }, messages: part.messages ?? all.messages }), {});
    return { headers, body: { ...chat('m1', `something new ${++serial}`, more), ...(messages && { messages }) } };
}

scenario('each way to name a conversation binds it, and it is followed', async (t) => {
    const { send } = await start(t);
    for (const kind of KINDS) {
        const first = await send(asking(kind.of('mine', 0)));
        const next = await send(asking(kind.of('another', 0)));
        assert.notEqual(next.account, first.account, `${kind.name}: another conversation`);
        for (const turn of [1, 2, 3]) {
            assert.equal((await send(asking(kind.of('mine', turn)))).account, first.account, `${kind.name}: turn ${turn}`);
            assert.notEqual((await send(asking())).account, first.account, `${kind.name}: what names none`);
        }
    }
});

scenario('of several names the one that stands first counts', async (t) => {
    const { send } = await start(t);
    for (const [i, earlier] of KINDS.entries())
        for (const later of KINDS.slice(i + 1)) {
            const names = `${earlier.name} and ${later.name} ${++serial}`;
            const one = await send(asking(earlier.of(`one of ${names}`, 0)));
            const two = await send(asking(later.of(`two of ${names}`, 0)));
            assert.notEqual(two.account, one.account, names);
            const both = await send(asking(earlier.of(`one of ${names}`, 1), later.of(`two of ${names}`, 1)));
            assert.equal(both.account, one.account, names);
        }
});

scenario('a response that goes on from another: its conversation comes behind header and cache key', async (t) => {
    const { send } = await start(t);
    const respond = ({ headers, more }, previous) =>
        send({ path: '/v1/responses', headers, body: { model: 'm1', input: `something new ${++serial}`, ...(previous && { previous_response_id: previous }), ...more } });
    for (const kind of [header('x-chatmux-session'), header('session_id'), member('prompt_cache_key')]) {
        const named = await respond(kind.of('mine'));
        const first = await respond({});
        assert.notEqual(first.account, named.account);
        const both = await respond(kind.of('mine'), first.answer.json.id);
        assert.equal(both.account, named.account, kind.name);
        const without = await respond({}, first.answer.json.id);
        assert.equal(without.account, first.account, 'the conversation itself');
    }
});

scenario('client keys do not share conversations, not even two of one name', async (t) => {
    const { send, admin } = await start(t, { keys: [CLIENT_KEY, OTHER_KEY] });
    const twins = [];
    for (let i = 0; i < 2; i++) twins.push((await admin('/keys', { name: 'twin' })).key);
    for (const [one, two] of [[CLIENT_KEY, OTHER_KEY], twins, [CLIENT_KEY, twins[0]]])
        for (const kind of KINDS) {
            const value = `ours ${++serial}`;
            const mine = await send({ ...asking(kind.of(value, 0)), key: one });
            const theirs = await send({ ...asking(kind.of(value, 1)), key: two });
            assert.notEqual(theirs.account, mine.account, kind.name);
            assert.equal((await send({ ...asking(kind.of(value, 1)), key: one })).account, mine.account, kind.name);
            assert.equal((await send({ ...asking(kind.of(value, 1)), key: two })).account, theirs.account, kind.name);
        }
});

scenario('a key that moves up in the list keeps its conversations, and does not get those of the one before', async (t) => {
    const { gw, config, send, admin } = await start(t, { keys: [CLIENT_KEY, OTHER_KEY] });
    const session = header('x-chatmux-session').of('mine');
    const mine = await send({ ...asking(session), key: OTHER_KEY });
    const theirs = await send({ ...asking(session), key: CLIENT_KEY });
    assert.notEqual(theirs.account, mine.account);
    gw.writeConfig({ ...config, auth: { ...config.auth, keys: [OTHER_KEY] } });
    assert.deepEqual((await admin('/reload')).changed, ['auth.keys']);
    assert.equal((await send({ ...asking(session), key: OTHER_KEY })).account, mine.account);
});
