// Every route that is no chat, through the official SDK, against a strict server: bytes go through as they came, but for the model's name.
import assert from 'node:assert/strict';
import net from 'node:net';
import OpenAI, { toFile } from 'openai';
import { CLIENT_KEY, request, scenario, startGateway } from '../lib/gateway.mjs';
import { IMAGE_USAGE, PIXEL, SOUND, startFakeApi, vectorOf } from '../lib/fake_openai_api.mjs';

const client = (gw) => new OpenAI({ baseURL: gw.base, apiKey: CLIENT_KEY, maxRetries: 0 });

/** `ours` goes up as `theirs`, everything else keeps its name. */
async function start(t, { fakeOptions, provider, ...more } = {}) {
    const fake = await startFakeApi(t, fakeOptions);
    const up = { type: 'openai', base_url: fake.base, credentials: fake.keys.slice(0, 1), models: ['*', 'ours=theirs'], ...provider };
    const gw = await startGateway(t, { ...more, config: { ...more.config, 'provider up': up } });
    return { fake, gw, sdk: client(gw) };
}

const form = (fields, boundary = 'x-BOUNDARY-1') =>
    Buffer.concat([
        ...fields.map(([name, value, file]) =>
            Buffer.concat([
                Buffer.from(`--${boundary}\r\nContent-Disposition: form-data; name="${name}"${file ? `; filename="${file}"\r\nContent-Type: application/octet-stream` : ''}\r\n\r\n`),
                Buffer.from(value),
                Buffer.from('\r\n'),
            ])),
        Buffer.from(`--${boundary}--\r\n`),
    ]);
const sendForm = (gw, path, body, boundary = 'x-BOUNDARY-1') =>
    request(gw, { path, body, headers: { 'content-type': `multipart/form-data; boundary=${boundary}` } });

scenario('text completions, whole and streamed', async (t) => {
    const { fake, sdk } = await start(t);
    const params = { model: 'ours', prompt: 'Once', max_tokens: 5, echo: false };
    const whole = await sdk.completions.create(params);
    assert.equal(whole.choices[0].text, ' and more');
    assert.equal(whole.usage.total_tokens, 8);
    assert.equal(fake.last.body.toString(), JSON.stringify({ ...params, model: 'theirs' }));

    const chunks = [];
    for await (const chunk of await sdk.completions.create({ ...params, stream: true })) chunks.push(chunk);
    assert.equal(chunks.map((c) => c.choices[0].text).join(''), ' and more');
    assert.equal(chunks.at(-1).choices[0].finish_reason, 'length');
    assert.ok(chunks.every((c) => !('usage' in c)), 'nobody asked for figures');
    assert.deepEqual(fake.last.json.stream_options, { include_usage: true });

    const counted = [];
    for await (const chunk of await sdk.completions.create({ ...params, stream: true, stream_options: { include_usage: true } })) counted.push(chunk);
    assert.equal(counted.at(-1).usage.total_tokens, 8);
    await sdk.completions.create({ model: 'ours', prompt: [[1, 2], [3]] });
    assert.deepEqual(fake.last.json.prompt, [[1, 2], [3]]);
});

scenario('embeddings, as numbers and as bytes', async (t) => {
    const { fake, sdk } = await start(t);
    const inputs = ['a', 'Grüße 世界'];
    const { data, usage } = await sdk.embeddings.create({ model: 'ours', input: inputs, dimensions: 3 });
    assert.equal(fake.last.json.encoding_format, 'base64', 'the SDK’s own choice came through');
    assert.deepEqual(data.map((d) => [...d.embedding]), inputs.map(vectorOf));
    assert.equal(usage.prompt_tokens, 9);
    const floats = await sdk.embeddings.create({ model: 'ours', input: [1, 2, 3], encoding_format: 'float' });
    assert.deepEqual(floats.data[0].embedding, vectorOf([1, 2, 3]));
});

scenario('moderations, with and without a model', async (t) => {
    const { fake, gw, sdk } = await start(t);
    const answer = await sdk.moderations.create({ model: 'ours', input: ['x', 'y'] });
    assert.equal(answer.results[0].category_scores['self-harm/intent'], 1.5e-7);
    const body = '{ "input" :[{"type":"text","text":"x"}] }';
    const raw = await request(gw, { path: '/v1/moderations', body });
    assert.equal(raw.status, 200, raw.text);
    assert.equal(fake.last.body.toString(), body);
});

scenario('pictures: whole, streamed, edited, varied', async (t) => {
    const { fake, sdk } = await start(t);
    const made = await sdk.images.generate({ model: 'ours', prompt: 'a dot', n: 2, size: '1024x1024' });
    assert.equal(made.data.length, 2);
    assert.equal(made.data[1].b64_json, PIXEL);
    assert.deepEqual(made.usage, IMAGE_USAGE);
    const events = [];
    for await (const event of await sdk.images.generate({ model: 'ours', prompt: 'a dot', stream: true, partial_images: 1 })) events.push(event);
    assert.deepEqual(events.map((e) => e.type), ['image_generation.partial_image', 'image_generation.completed']);
    assert.equal(events[1].b64_json, PIXEL);

    const png = Buffer.from(PIXEL, 'base64');
    const files = [await toFile(png, 'a.png', { type: 'image/png' }), await toFile(Buffer.concat([png, png]), 'b.png', { type: 'image/png' })];
    const edited = await sdk.images.edit({ model: 'ours', prompt: 'bigger', image: files, mask: files[0] });
    assert.equal(edited.data[0].b64_json, PIXEL);
    assert.equal(fake.last.form.find((p) => p.name === 'model').bytes.toString(), 'theirs');
    assert.deepEqual(fake.last.form.filter((p) => p.name === 'image[]').map((p) => p.bytes), [png, Buffer.concat([png, png])]);
    const stream = [];
    for await (const event of await sdk.images.edit({ model: 'ours', prompt: 'bigger', image: files[0], stream: true })) stream.push(event.type);
    assert.deepEqual(stream, ['image_edit.partial_image', 'image_edit.completed']);

    const varied = await sdk.images.createVariation({ image: files[0], n: 1 });
    assert.match(varied.data[0].url, /^https:/);
    assert.ok(!fake.last.form.some((p) => p.name === 'model'), 'what the client left out stays out');
});

scenario('speech: bytes as they come, with their own type, or events', async (t) => {
    const { fake, sdk } = await start(t);
    const answer = await sdk.audio.speech.create({ model: 'ours', voice: 'alloy', input: 'Grüße', response_format: 'wav' });
    assert.equal(answer.headers.get('content-type'), 'audio/wav');
    assert.deepEqual(Buffer.from(await answer.arrayBuffer()), SOUND);
    assert.equal(fake.last.headers.accept, '*/*');
    assert.equal(fake.last.json.model, 'theirs');
    const events = await sdk.audio.speech.create({ model: 'ours', voice: 'alloy', input: 'Hi', stream_format: 'sse' });
    assert.match(events.headers.get('content-type'), /^text\/event-stream/);
    assert.match(await events.text(), /speech\.audio\.delta[\s\S]*speech\.audio\.done/);
});

scenario('transcriptions and translations in every form', async (t) => {
    const { fake, sdk } = await start(t);
    const file = await toFile(SOUND, 'grüße.mp3', { type: 'audio/mpeg' });
    const plain = await sdk.audio.transcriptions.create({ model: 'ours', file, language: 'de', timestamp_granularities: ['word', 'segment'] });
    assert.equal(plain.text, 'Grüße');
    assert.deepEqual(fake.last.form.find((p) => p.name === 'file').bytes, SOUND);
    assert.equal(fake.last.form.find((p) => p.name === 'model').bytes.toString(), 'theirs');
    assert.equal(await sdk.audio.transcriptions.create({ model: 'ours', file, response_format: 'text' }), 'Grüße\n');
    assert.match(await sdk.audio.transcriptions.create({ model: 'ours', file, response_format: 'srt' }), /-->/);
    assert.equal((await sdk.audio.transcriptions.create({ model: 'ours', file, response_format: 'verbose_json' })).duration, 1);
    const types = [];
    for await (const event of await sdk.audio.transcriptions.create({ model: 'ours', file, stream: true })) types.push(event.type);
    assert.deepEqual(types, ['transcript.text.delta', 'transcript.text.delta', 'transcript.text.done']);
    assert.equal((await sdk.audio.translations.create({ model: 'ours', file })).text, 'Grüße');
});

scenario('a form goes up byte for byte but for its model, wherever that stands', async (t) => {
    const { fake, gw } = await start(t);
    const tricky = Buffer.from('--x-BOUND\r\n\r\nContent-Disposition: form-data; name="model"\r\n\r\nnone\r\n--\r\n\0\xff', 'latin1');
    for (const where of [0, 1, 2]) {
        const fields = [['file', tricky, 'a b;c.mp3'], ['response_format', 'json']];
        const sent = (model) => form([...fields.slice(0, where), ['model', model], ...fields.slice(where)]);
        const answer = await sendForm(gw, '/v1/audio/transcriptions', sent('ours'));
        assert.equal(answer.status, 200, answer.text);
        assert.deepEqual(fake.last.body, sent('theirs'));
        await sendForm(gw, '/v1/audio/transcriptions', sent('m1'));
        assert.deepEqual(fake.last.body, sent('m1'));
    }
    const varied = await sendForm(gw, '/v1/images/variations', form([['image', 'png', 'a.png']]));
    assert.equal(varied.status, 200, varied.text);
    assert.deepEqual(fake.last.body, form([['image', 'png', 'a.png']]));
});

scenario('a model that is left out of a form is put in where ours has another name', async (t) => {
    const { fake, gw } = await start(t, { provider: { models: ['dall-e-2=painter'] } });
    const answer = await sendForm(gw, '/v1/images/variations', form([['image', 'png', 'a.png']]));
    assert.equal(answer.status, 200, answer.text);
    assert.deepEqual(fake.last.body, form([['model', 'painter'], ['image', 'png', 'a.png']]));
});

scenario('a form that arrives in pieces is the same form', async (t) => {
    const { fake, gw } = await start(t);
    const sent = form([['model', 'ours'], ['file', SOUND.subarray(0, 300), 'a.mp3']]);
    const head = `POST /v1/audio/transcriptions HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer ${CLIENT_KEY}\r\nContent-Type: multipart/form-data; boundary="x-BOUNDARY-1"\r\n`;
    for (let cut = 0; cut <= sent.length; cut += 7) {
        const pieces = [sent.subarray(0, cut), sent.subarray(cut)].filter((p) => p.length > 0);
        const status = await new Promise((done, fail) => {
            const socket = net.connect(gw.port, '127.0.0.1', async () => {
                socket.setNoDelay(true);
                socket.write(`${head}Transfer-Encoding: chunked\r\n\r\n`);
                for (const piece of pieces) {
                    await new Promise((next) => setImmediate(next));
                    socket.write(Buffer.concat([Buffer.from(`${piece.length.toString(16)}\r\n`), piece, Buffer.from('\r\n')]));
                }
                socket.write('0\r\n\r\n');
            });
            socket.once('data', (data) => (socket.destroy(), done(Number(/^HTTP\/1\.1 (\d+)/.exec(data)[1]))));
            socket.once('error', fail);
        });
        assert.equal(status, 200, `cut at ${cut}`);
        assert.deepEqual(fake.last.body, form([['model', 'theirs'], ['file', SOUND.subarray(0, 300), 'a.mp3']]));
    }
});

scenario('forms that two readers could read in two ways are refused here', async (t) => {
    const { fake, gw } = await start(t);
    const good = form([['model', 'ours'], ['file', 'x', 'a.mp3']]).toString('latin1');
    const cases = [
        form([['model', 'ours'], ['model', 'other'], ['file', 'x', 'a.mp3']]),
        good.replaceAll('\r\n', '\n'),
        good.replace('name="model"', 'name="mod\\el"'),
        good.replace('name="model"', 'name*=utf-8\'\'model'),
        good.replace('name="model"', 'name="model"; name="x"'),
        good.replace('name="model"\r\n', 'name="model"\r\nContent-Disposition: form-data; name="x"\r\n'),
        good.replace('name="model"\r\n', 'name="model"\r\nContent-Transfer-Encoding: base64\r\n'),
        good.replace('ours\r\n', 'ours--x-BOUNDARY-1\r\n'),
        good.slice(0, -8),
        good.slice(2),
        '',
    ];
    for (const body of cases) {
        const answer = await sendForm(gw, '/v1/audio/transcriptions', Buffer.from(body, 'latin1'));
        assert.equal(answer.status, 400, `${JSON.stringify(body.toString()).slice(0, 200)}: ${answer.text}`);
        assert.equal(answer.error.type, 'invalid_request_error');
    }
    assert.equal((await request(gw, { path: '/v1/audio/transcriptions', body: { model: 'ours' } })).status, 400, 'JSON is no form');
    assert.equal(fake.requests.length, 0);
});

const limited = { status: 429, type: 'application/json', body: Buffer.from('{"error":{"message":"slow down","type":"requests","code":"rate_limit_exceeded"}}'), headers: { 'retry-after': '30' } };

scenario('another credential takes over on every route', async (t) => {
    const { fake, gw, sdk } = await start(t, { provider: { credentials: ['sk-up-1', 'sk-up-2'] } });
    fake.key('sk-up-1', limited);
    const file = await toFile(SOUND, 'a.mp3');
    for (let i = 0; i < 2; i++) {
        await sdk.completions.create({ model: 'ours', prompt: 'x' });
        await sdk.embeddings.create({ model: 'ours', input: 'x' });
        await sdk.moderations.create({ model: 'ours', input: 'x' });
        await sdk.images.generate({ model: 'ours', prompt: 'x' });
        await sdk.images.edit({ model: 'ours', prompt: 'x', image: file });
        assert.deepEqual(Buffer.from(await (await sdk.audio.speech.create({ model: 'ours', voice: 'a', input: 'x' })).arrayBuffer()), SOUND);
        assert.equal((await sdk.audio.transcriptions.create({ model: 'ours', file })).text, 'Grüße');
        await sdk.files.list();
    }
    assert.equal(fake.requests.filter((r) => r.key === 'sk-up-1').length, 1, 'once limited, it rests');
    const metrics = await request(gw, { path: '/metrics' });
    assert.match(metrics.text, /chatmux_attempts_total\{provider="up",class="rate_limited"\} 1\n/);
});

scenario('what a model cannot do here does not rest it for chat', async (t) => {
    const { fake, sdk } = await start(t, { fakeOptions: { strict: false } });
    fake.key('sk-up-1', { status: 404, type: 'application/json', body: Buffer.from('{"error":{"message":"This is a chat model","type":"invalid_request_error","param":"model","code":null}}') });
    await assert.rejects(sdk.completions.create({ model: 'ours', prompt: 'x' }), (e) => e.status === 404);
    fake.key('sk-up-1', (rec) => ({ status: 200, type: 'application/json', body: Buffer.from(JSON.stringify({ id: 'c', object: 'chat.completion', model: rec.json.model, choices: [{ index: 0, message: { role: 'assistant', content: 'Hi' }, finish_reason: 'stop' }] })) }));
    const chat = await sdk.chat.completions.create({ model: 'ours', messages: [{ role: 'user', content: 'x' }] });
    assert.equal(chat.choices[0].message.content, 'Hi');
});

scenario('bytes that break off are not a clean end, and nothing of ours stands among them', async (t) => {
    const { fake, gw } = await start(t);
    fake.key('sk-up-1', { status: 200, type: 'audio/mpeg', body: SOUND, cut: true });
    const body = { model: 'ours', voice: 'a', input: 'x' };
    await assert.rejects(request(gw, { path: '/v1/audio/speech', body }), /aborted|hang up|ECONNRESET/);
    fake.key('sk-up-1', { status: 200, type: 'text/event-stream', body: Buffer.from('event: transcript.text.delta\ndata: {"type":"transcript.text.delta","delta":"x"}\n\n') });
    const events = await sendForm(gw, '/v1/audio/transcriptions', form([['model', 'ours'], ['stream', 'true'], ['file', 'x', 'a.mp3']])).catch((e) => e);
    assert.ok(events instanceof Error, 'a stream without its last event is cut');
});

scenario('a 200 that is no answer is none', async (t) => {
    const { fake, gw } = await start(t, { config: { retry: { retries: 0 } } });
    fake.key('sk-up-1', { status: 200, type: 'text/html', body: Buffer.from('<html>') });
    assert.equal((await request(gw, { path: '/v1/embeddings', body: { model: 'ours', input: 'x' } })).status, 502);
    fake.key('sk-up-1', { status: 200, type: 'application/json', body: Buffer.from('{"error":{"message":"out of order","type":"server_error"}}') });
    assert.equal((await request(gw, { path: '/v1/embeddings', body: { model: 'ours', input: 'x' } })).status, 502);
});

scenario('usage of what is no chat is counted', async (t) => {
    const { gw, sdk } = await start(t);
    await sdk.embeddings.create({ model: 'ours', input: 'x' });
    await sdk.images.generate({ model: 'ours', prompt: 'x' });
    await sdk.audio.transcriptions.create({ model: 'ours', file: await toFile(SOUND, 'a.mp3'), stream: true }).then(async (s) => { for await (const e of s) void e; });
    const { text } = await request(gw, { path: '/metrics' });
    assert.match(text, new RegExp(`chatmux_tokens_total\\{provider="up",model="theirs",type="input"\\} ${9 + 17 + 14}\\n`));
    assert.match(text, new RegExp(`chatmux_tokens_total\\{provider="up",model="theirs",type="output"\\} ${40 + 5}\\n`));
});

scenario('mistakes in what is read here name the member', async (t) => {
    const { fake, gw } = await start(t);
    const cases = [
        ['/v1/completions', { prompt: 'x' }, 'model'], ['/v1/completions', { model: 'm', prompt: {} }, 'prompt'], ['/v1/completions', { model: 'm', prompt: ['x', 1] }, 'prompt[1]'],
        ['/v1/completions', { model: 'm', prompt: 'x', n: 0 }, 'n'], ['/v1/embeddings', { model: 'm' }, 'input'], ['/v1/embeddings', { model: 'm', input: [] }, 'input'],
        ['/v1/embeddings', { model: 'm', input: '' }, 'input'], ['/v1/embeddings', { model: 'm', input: 'x', encoding_format: 'int8' }, 'encoding_format'],
        ['/v1/moderations', {}, 'input'], ['/v1/audio/speech', { model: 'm' }, 'input'], ['/v1/embeddings', '{"model":"a","model":"b","input":"x"}', 'model'],
    ];
    for (const [path, body, param] of cases) {
        const answer = await request(gw, { path, body });
        assert.equal(answer.status, 400, `${path} ${JSON.stringify(body)}: ${answer.text}`);
        assert.equal(answer.error.param, param);
    }
    assert.equal(fake.requests.length, 0);
});

// ---- what is only passed on -------------------------------------------------------------------------------------

scenario('files, batches and the rest through the SDK', async (t) => {
    const { fake, sdk } = await start(t);
    const made = await sdk.files.create({ file: await toFile(SOUND, 'in.jsonl'), purpose: 'batch' });
    assert.match(made.id, /^file-/);
    assert.deepEqual(fake.last.form.find((p) => p.name === 'file').bytes, SOUND);
    const page = await sdk.files.list({ purpose: 'batch', limit: 10 });
    assert.deepEqual(page.data.map((f) => f.id), [made.id]);
    assert.equal(fake.last.url, '/v1/files?purpose=batch&limit=10');
    assert.equal((await sdk.files.retrieve(made.id)).bytes, SOUND.length);
    const content = await sdk.files.content(made.id);
    assert.deepEqual(Buffer.from(await content.arrayBuffer()), SOUND);
    assert.equal(content.headers.get('content-type'), 'application/octet-stream');
    assert.equal(content.headers.get('content-disposition'), 'attachment; filename="x"');
    assert.equal(content.headers.get('set-cookie'), null);
    assert.equal(content.headers.get('x-chatmux-provider'), 'up');
    const batch = await sdk.batches.create({ input_file_id: made.id, endpoint: '/v1/embeddings', completion_window: '24h' });
    assert.equal(batch.object, 'batch');
    assert.equal((await sdk.fineTuning.jobs.create({ model: 'gpt', training_file: made.id })).id, 'ftjob-1');
    assert.equal((await sdk.vectorStores.update('vs_1', { name: 'x' })).name, 'x');
    assert.equal(fake.last.headers['openai-beta'], 'assistants=v2', 'what the SDK says about the request goes up');
    assert.equal((await sdk.files.delete(made.id)).deleted, true);
    assert.equal(fake.last.method, 'DELETE');
});

scenario('any method and status comes through as it is', async (t) => {
    const { gw } = await start(t, { fakeOptions: { strict: false } });
    const missing = await request(gw, { path: '/v1/files/file-9' });
    assert.equal(missing.status, 404);
    assert.equal(missing.error.message, 'No such File object: file-9');
    const nothing = await request(gw, { path: '/v1/nothing', method: 'PUT' });
    assert.equal(nothing.status, 204);
    assert.equal(nothing.bytes.length, 0);
    const patch = await request(gw, { path: '/v1/v1//files', method: 'PATCH', body: '' });
    assert.equal(patch.status, 404, 'the upstream’s own');
    assert.match(patch.error.message, /Invalid URL \(PATCH/);
    const head = await request(gw, { path: '/v1/files', method: 'HEAD' });
    assert.equal(head.bytes.length, 0);
});

scenario('one of several providers must be named', async (t) => {
    const second = await startFakeApi(t, { keys: ['sk-other'] });
    const { fake, gw } = await start(t, {
        config: {
            'provider other': { type: 'openai', base_url: second.base, credentials: 'sk-other', models: 'x' },
            'provider bare': { type: 'openai', base_url: second.base, credentials: 'sk-other', models: 'y', 'x.tasks': 'chat' },
            'provider demo': { type: 'demo' },
        },
    });
    const asked = await request(gw, { path: '/v1/files' });
    assert.equal(asked.status, 400);
    assert.equal(asked.error.param, 'x-chatmux-target');
    assert.match(asked.error.message, /: (up, other|other, up)$/);
    assert.equal((await request(gw, { path: '/v1/files', headers: { 'x-chatmux-target': 'other' } })).status, 200);
    assert.equal(second.requests.length, 1);
    assert.equal(fake.requests.length, 0);
    for (const [target, why] of [['bare', /names bare, which does not take what is only passed on\. It can go to: (up, other|other, up)$/], ['nobody', /names nobody, which is no provider here\./]]) {
        const wrong = await request(gw, { path: '/v1/files', headers: { 'x-chatmux-target': target } });
        assert.equal(wrong.status, 400);
        assert.equal(wrong.error.param, 'x-chatmux-target');
        assert.match(wrong.error.message, why);
    }
});

scenario('x-chatmux-target also pins who serves a model', async (t) => {
    const { gw } = await start(t, { config: { 'provider demo': { type: 'demo', models: 'shared=demo' } } });
    const body = { model: 'shared', prompt: 'say this' };
    const pinned = await request(gw, { path: '/v1/completions', body, headers: { 'x-chatmux-target': 'demo' } });
    assert.equal(pinned.headers['x-chatmux-provider'], 'demo');
    const wrong = await request(gw, { path: '/v1/completions', body: { model: 'demo/shared', prompt: 'x' }, headers: { 'x-chatmux-target': 'up' } });
    assert.equal(wrong.status, 400);
    assert.equal(wrong.error.param, 'x-chatmux-target');
});

scenario('no provider that passes on: an unknown path stays one', async (t) => {
    const gw = await startGateway(t, { config: { 'provider demo': { type: 'demo' } } });
    assert.equal((await request(gw, { path: '/v1/files' })).status, 404);
});

scenario('neither keys nor ways out: what never goes up', async (t) => {
    const { fake, gw } = await start(t);
    for (const path of [
        '/v1/admin/x', '/v1/organization/projects', '/v1/ADMIN', '/v1/realtime/client_secrets', '/v1/chatkit/sessions', '/files', '/x/v1/files',
        '/v1/../files', '/v1/files/..', '/v1/files/../../admin', '/v1/files/%2e%2e/x', '/v1/files/%2E%2E%2Fadmin', '/v1/files/%252e%252e/x', '/v1/files/a%2fb',
        '/v1/files/a%5cb', '/v1/files/.', '/v1/files/a%00b', '/v1/files/a%0d%0ab', '/v1/files/a;b', '/v1/%61dmin/x', '/v1/files/%',
    ]) {
        const answer = await request(gw, { path });
        assert.equal(answer.status, 404, `${path}: ${answer.status} ${answer.text}`);
    }
    assert.deepEqual(fake.requests.map((r) => r.url), []);
    const keyed = await request(gw, { path: `/v1/files?limit=2&key=${CLIENT_KEY}&after=x`, key: null });
    assert.equal(keyed.status, 200, keyed.text);
    assert.equal(fake.last.url, '/v1/files?limit=2&after=x');
    assert.equal((await request(gw, { path: '/v1/files', key: null })).status, 401);
    const headers = { 'x-api-key': 'a', cookie: 'b=c', 'x-forwarded-for': '1.2.3.4', 'openai-organization': 'org-1', 'x-stainless-os': 'Linux', referer: 'http://x' };
    assert.equal((await request(gw, { path: '/v1/files', headers })).status, 200);
});

scenario('keys that are limited may not spend what nobody counts', async (t) => {
    const { fake, gw } = await start(t, { config: { auth: { keys: CLIENT_KEY, admin_secret: 'admin-secret-1' } } });
    const made = await request(gw, { path: '/admin/api/keys', key: 'admin-secret-1', body: { name: 'small', models: ['theirs'] } });
    assert.equal(made.status, 201, made.text);
    const key = made.json.key ?? made.json.secret;
    assert.equal((await request(gw, { path: '/v1/files', key })).status, 200);
    const refused = await request(gw, { path: '/v1/batches', key, body: { input_file_id: 'x', endpoint: '/v1/embeddings', completion_window: '24h' } });
    assert.equal(refused.status, 403, refused.text);
    assert.equal(fake.requests.length, 1);
});

scenario('what is encoded is not passed on', async (t) => {
    const { fake, gw } = await start(t);
    for (const path of ['/v1/batches', '/v1/embeddings']) assert.equal((await request(gw, { path, body: 'x', headers: { 'content-encoding': 'gzip' } })).status, 415);
    assert.equal(fake.requests.length, 0);
});

scenario('what is passed on is in the log', async (t) => {
    const { gw } = await start(t);
    await request(gw, { path: '/v1/files' });
    const { text } = await request(gw, { path: '/metrics' });
    assert.match(text, /chatmux_requests_total\{surface="openai",provider="up",model="",outcome="ok"\} 1\n/);
});

const DOWN = { status: 500, type: 'application/json', body: Buffer.from('{"error":{"message":"oops"}}') };
for (const [method, headers, times] of [['POST', {}, 1], ['PATCH', {}, 1], ['GET', {}, 2], ['POST', { 'idempotency-key': 'once' }, 2]])
    scenario(`what is passed on is not done twice: ${method} ${Object.keys(headers)}`, async (t) => {
        for (const behave of [DOWN, 'cut']) {
            const { fake, gw } = await start(t, { provider: { credentials: ['sk-up-1', 'sk-up-2'] }, config: { retry: { retries: 0 } } });
            for (const key of fake.keys) fake.key(key, behave);
            const answer = await request(gw, { path: '/v1/vector_stores/vs_1', method, headers, body: method === 'GET' ? undefined : { name: 'x' } });
            assert.equal(answer.status, 502, answer.text);
            assert.equal(fake.requests.length, times, behave === 'cut' ? 'cut' : '500');
        }
    });

scenario('a session keeps its account, so that it finds what it made', async (t) => {
    const { fake, gw } = await start(t, { provider: { credentials: ['sk-up-1', 'sk-up-2'] } });
    const headers = { 'x-chatmux-session': 'mine' };
    for (let i = 0; i < 6; i++) assert.equal((await request(gw, { path: '/v1/files', headers })).status, 200);
    assert.equal(new Set(fake.requests.map((r) => r.key)).size, 1);
    for (let i = 0; i < 6; i++) assert.equal((await request(gw, { path: '/v1/files' })).status, 200);
    assert.equal(new Set(fake.requests.map((r) => r.key)).size, 2);
});
