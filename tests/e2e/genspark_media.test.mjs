// genspark's pictures and videos through the gateway: jobs that are waited for, in both dialects.
import assert from 'node:assert/strict';
import OpenAI from 'openai';
import { chat, CLIENT_KEY, request, scenario, startGateway, until } from '../lib/gateway.mjs';
import { IMAGE_BYTES, say, session, startFakeGenspark, startPublicHost } from '../lib/fake_genspark.mjs';
import { readChatStream } from '../lib/raw.mjs';

async function pair(t, { fake: fakeOptions, provider, config } = {}) {
    const fake = await startFakeGenspark(t, fakeOptions);
    const gw = await startGateway(t, {
        config: { retry: { retries: 0 }, 'provider genspark': { type: 'genspark', base_url: fake.base, credentials: fake.sessions, 'x.poll_interval': '20ms', ...provider }, ...config },
    });
    return { fake, gw, sdk: new OpenAI({ baseURL: gw.base, apiKey: CLIENT_KEY, maxRetries: 0 }) };
}

const DIALECTS = ['agent', 'copilot'];
const video = (gw, body) => request(gw, { path: '/v1/videos/generations', body: { model: 'sora-2', prompt: 'a dot that moves', ...body } });

for (const dialect of DIALECTS) {
    scenario(`a picture as bytes, ${dialect} dialect`, async (t) => {
        const { fake, sdk } = await pair(t, { provider: { 'x.dialect': dialect } });
        fake.media.polls = 3;
        for (const model of ['nano-banana-pro', 'dall-e-3']) {
            const answer = await sdk.images.generate({ model, prompt: 'a dot', size: '1792x1024' });
            assert.equal(answer.data.length, 1);
            assert.deepEqual(Buffer.from(answer.data[0].b64_json, 'base64'), IMAGE_BYTES);
        }
        const asked = fake.asks.map(({ json }) => json.model_params ?? json.extra_data.model_configs[0]);
        assert.deepEqual(asked.map((p) => [p.model, p.aspect_ratio]), [['nano-banana-pro', '16:9'], ['dalle-3', '16:9']]);
        assert.ok(fake.of('/api/spark/image_generation_task_detail').length >= (dialect === 'agent' ? 8 : 0));
    });

    scenario(`addresses that everybody can open are told, ${dialect} dialect`, async (t) => {
        const host = await startPublicHost(t);
        const { fake, sdk } = await pair(t, { provider: { 'x.dialect': dialect } });
        fake.media.url = (id) => `${host.base}/${id}.png`;
        const told = await sdk.images.generate({ model: 'qwen-image', prompt: 'a dot', response_format: 'url' });
        assert.match(told.data[0].url, new RegExp(`^${host.base}/[0-9a-f-]+\\.png$`));
        assert.equal(host.requests.length, 0);
        const bytes = await sdk.images.generate({ model: 'qwen-image', prompt: 'a dot', response_format: 'b64_json' });
        assert.deepEqual(Buffer.from(bytes.data[0].b64_json, 'base64'), IMAGE_BYTES);
        fake.media.url = (id) => `${host.base}/gone-${id}.png`;
        const gone = await sdk.images.generate({ model: 'qwen-image', prompt: 'a dot', response_format: 'b64_json' });
        assert.match(gone.data[0].url, /gone/, 'what cannot be fetched is told');
    });

    scenario(`a video, ${dialect} dialect`, async (t) => {
        const host = await startPublicHost(t);
        const { fake, gw } = await pair(t, { provider: { 'x.dialect': dialect } });
        fake.media.url = (id) => `${host.base}/${id}.mp4`;
        fake.media.polls = 2;
        const { status, json, text } = await video(gw, { aspect_ratio: '9:16', duration: 8, auto_prompt: true });
        assert.equal(status, 200, text);
        assert.match(json.data[0].url, /\.mp4$/);
        assert.equal(json.data[0].revised_prompt, 'a dot that moves');
        const p = fake.asks[0].json.model_params ?? fake.asks[0].json.extra_data.model_configs[0];
        assert.deepEqual([p.model, p.aspect_ratio, p.duration, p.auto_prompt ?? p.reflection_enabled], ['sora-2', '9:16', 8, true]);
        const plain = await video(gw, {});
        assert.equal(plain.status, 200, plain.text);
        const q = fake.asks[1].json.model_params ?? fake.asks[1].json.extra_data.model_configs[0];
        assert.deepEqual([q.aspect_ratio, q.duration], ['16:9', 5]);
    });

    scenario(`pictures and videos in chat, ${dialect} dialect`, async (t) => {
        const host = await startPublicHost(t);
        const { fake, gw, sdk } = await pair(t, { provider: { 'x.dialect': dialect } });
        fake.media.url = (id) => `${host.base}/${id}`;
        const messages = [{ role: 'system', content: 'S' }, { role: 'user', content: 'first' }, { role: 'assistant', content: 'A' }, { role: 'user', content: 'a dot' }];
        const whole = await sdk.chat.completions.create({ model: 'nano-banana-2', messages });
        assert.match(whole.choices[0].message.content, new RegExp(`^!\\[Image\\]\\(${host.base}/[0-9a-f-]+\\)$`));
        assert.equal(fake.asks[0].json.user_s_input, 'a dot');
        const streamed = readChatStream((await request(gw, { body: { model: 'kling/v3', messages, stream: true } })).bytes);
        assert.match(streamed.text, new RegExp(`^\\[Video\\]\\(${host.base}/[0-9a-f-]+\\)$`));
        assert.ok(streamed.done);
        const own = await pair(t, { provider: { 'x.dialect': dialect } });
        const inline = await own.sdk.chat.completions.create({ model: 'nano-banana-2', messages });
        assert.equal(inline.choices[0].message.content, `![Image](data:image/webp;base64,${IMAGE_BYTES.toString('base64')})`);
    });

    scenario(`jobs that fail, ${dialect} dialect`, async (t) => {
        for (const outcome of dialect === 'agent' ? ['FAILED', 'FAILURE', 'ERROR'] : ['FAILED']) {
            const { fake, sdk } = await pair(t, { provider: { 'x.dialect': dialect } });
            fake.media.outcome = outcome;
            await assert.rejects(sdk.images.generate({ model: 'flux', prompt: 'a dot' }), (e) => e.status === 502 && /could not make it/.test(e.message));
            assert.equal(new Set(fake.asks.map((rec) => rec.session)).size, 2, 'the other account was not tried');
        }
    });

    scenario(`chats of pictures are deleted, or used again, ${dialect} dialect`, async (t) => {
        const { fake, sdk } = await pair(t, { provider: { 'x.dialect': dialect, 'x.delete_chat': 'yes' } });
        for (let i = 0; i < 3; i++) await sdk.images.generate({ model: 'flux', prompt: 'a dot' });
        fake.media.outcome = 'FAILED';
        await assert.rejects(sdk.images.generate({ model: 'flux', prompt: 'a dot' }));
        await until(() => fake.projects.size >= 4 && fake.undeleted().length === 0, 'every chat to be deleted');
    });
}

scenario('the status stream without "data: " in front', async (t) => {
    const { fake, sdk } = await pair(t, { provider: { 'x.dialect': 'copilot' } });
    fake.media.prefix = false;
    fake.media.count = 3;
    assert.equal((await sdk.images.generate({ model: 'flux', prompt: 'a dot' })).data.length, 3);
});

scenario('several pictures, and several in chat', async (t) => {
    const { fake, sdk } = await pair(t);
    assert.equal((await sdk.images.generate({ model: 'flux', prompt: 'a dot', n: 4 })).data.length, 4);
    assert.equal(fake.asks[0].json.model_params.generation_count, 4);
    const copilot = await pair(t, { provider: { 'x.dialect': 'copilot' } });
    await assert.rejects(copilot.sdk.images.generate({ model: 'flux', prompt: 'a dot', n: 2 }), (e) => e.status === 400 && e.param === 'n');
    copilot.fake.media.count = 2;
    const { message } = (await copilot.sdk.chat.completions.create({ model: 'flux', messages: [{ role: 'user', content: 'a dot' }] })).choices[0];
    assert.equal(message.content.split('\n').length, 2);
});

scenario('a picture to work on', async (t) => {
    for (const dialect of DIALECTS) {
        const { fake, gw, sdk } = await pair(t, { provider: { 'x.dialect': dialect } });
        const url = `data:image/png;base64,${IMAGE_BYTES.toString('base64')}`;
        const answer = await request(gw, { path: '/v1/images/generations', body: { model: 'fal-bria-rmbg', prompt: 'no background', image: url } });
        assert.equal(answer.status, 200, answer.text);
        await sdk.chat.completions.create({ model: 'fal-bria-rmbg', messages: [{ role: 'user', content: [{ type: 'text', text: 'no background' }, { type: 'image_url', image_url: { url } }] }] });
        for (const { json } of fake.asks) {
            const [picture, text] = json.messages[0].content;
            assert.equal(picture.image_url.url, `data:image/jpeg;base64,${IMAGE_BYTES.toString('base64')}`);
            assert.equal(text.text, 'no background');
        }
    }
});

scenario('a picture to edit, from a form', async (t) => {
    const { fake, sdk } = await pair(t);
    const image = await OpenAI.toFile(IMAGE_BYTES, 'dot.png', { type: 'image/png' });
    const answer = await sdk.images.edit({ model: 'fal-ai/image-editing/text-removal', prompt: 'no text', image });
    assert.deepEqual(Buffer.from(answer.data[0].b64_json, 'base64'), IMAGE_BYTES);
    assert.equal(fake.asks[0].json.messages[0].content[0].image_url.url, `data:image/jpeg;base64,${IMAGE_BYTES.toString('base64')}`);
    await assert.rejects(sdk.images.edit({ model: 'flux', prompt: 'x', image, mask: image }), (e) => e.status === 400 && e.param === 'mask');
});

scenario('a picture behind an address to work on', async (t) => {
    const host = await startPublicHost(t);
    const { fake, gw } = await pair(t, { provider: { allow_private_fetch: 'yes' } });
    const answer = await request(gw, { path: '/v1/images/generations', body: { model: 'fal-bria-rmbg', prompt: 'no background', image: `${host.base}/a.png` } });
    assert.equal(answer.status, 200, answer.text);
    assert.equal(fake.asks[0].json.messages[0].content[0].image_url.url, `data:image/jpeg;base64,${IMAGE_BYTES.toString('base64')}`);
});

scenario('one chat for a client’s pictures; a lost one is made anew', async (t) => {
    const keys = ['sk-key-of-ann-0001', 'sk-key-of-bob-0002'];
    const { fake, gw } = await pair(t, { fake: { sessions: [session(1)], strict: false }, config: { auth: { keys } } });
    const make = async (key) => assert.equal((await request(gw, { key, path: '/v1/images/generations', body: { model: 'flux', prompt: 'a dot' } })).status, 200);
    for (const key of [keys[0], keys[0], keys[1]]) await make(key);
    const [a, b, c] = fake.asks.map((rec) => rec.project);
    assert.equal(b, a);
    assert.notEqual(c, a);
    fake.projects.get(a).deleted = true;
    await make(keys[0]);
    assert.equal(fake.projects.size, 3);
    assert.equal(fake.of('/api/project/create').length, 3);
});

scenario('an account’s own chat for pictures', async (t) => {
    const chatId = '3cdcc000-0000-4000-8000-000000000001';
    for (const dialect of DIALECTS) {
        const { fake, gw, sdk } = await pair(t, { fake: { sessions: [session(1)] }, provider: { 'x.dialect': dialect, 'x.delete_chat': 'yes', 'x.session_image_chat_map': `${session(1)}=${chatId}` } });
        fake.projects.set(chatId, { session: session(1), type: 'image', deleted: false, kept: true });
        await sdk.images.generate({ model: 'flux', prompt: 'a dot' });
        assert.equal(fake.asks[0].project, chatId);
        assert.equal(fake.of('/api/project/delete').length, 0);
        assert.ok(!gw.output.includes(session(1)));
    }
});

scenario('jobs take too long, or the site is weak for a moment', async (t) => {
    const { fake, sdk } = await pair(t);
    fake.media.weak = 3;
    assert.equal((await sdk.images.generate({ model: 'flux', prompt: 'a dot' })).data.length, 1);
    const slow = await pair(t, { provider: { 'x.image_timeout': '1s', 'x.poll_interval': '100ms' } });
    slow.fake.media.polls = 1e9;
    await assert.rejects(slow.sdk.images.generate({ model: 'flux', prompt: 'a dot' }), (e) => e.status === 504 && /image_timeout/.test(e.message));
});

scenario('failures of the catalogue, asked for a picture', async (t) => {
    for (const [what, behave, status, code] of [
        ['overloaded', say.sentence('Server overloaded, please try again later.'), 502, 'upstream_error'],
        ['a window', say.limit('AI Image [5-hour limit](/x) reached.'), 429, 'rate_limit_exceeded'],
        ['no job', say.sentence('I will not.', { served: 'x' }), 502, 'upstream_error'],
        ['not logged in', say.notLogin(), 502, 'upstream_auth'],
        ['challenge', say.challenge(), 503, 'verification_required'],
    ])
        for (const dialect of DIALECTS) {
            const { fake, sdk, gw } = await pair(t, { provider: { 'x.dialect': dialect } });
            fake.onAsk(() => behave);
            await assert.rejects(sdk.images.generate({ model: 'flux', prompt: 'a dot' }), (e) => e.status === status && e.code === code, `${what}, ${dialect}`);
            assert.equal(fake.asks.length, what === 'challenge' ? 1 : 2, what);
            await gw.kill();
        }
});

scenario('models are for what they make; another one is told in the log', async (t) => {
    const { fake, gw, sdk } = await pair(t, { provider: { models: ['*', 'new-painter', 'gpt-5.2', 'flux', 'sora-2'] } });
    for (const [path, model] of [['images', 'gpt-5.2'], ['images', 'sora-2'], ['videos', 'flux'], ['videos', 'gpt-5.2']]) {
        const answer = await request(gw, { path: `/v1/${path}/generations`, body: { model, prompt: 'x' } });
        assert.equal(answer.status, 400, `${path} ${model}: ${answer.text}`);
        assert.equal(answer.error.param, 'model');
    }
    assert.equal(fake.requests.length, 0);
    for (const model of ['new-painter', 'unheard-of']) {
        fake.media.model = 'flux-speed';
        await sdk.images.generate({ model, prompt: 'x' });
        assert.equal(fake.asks.at(-1).json.model_params.model, model);
    }
    await gw.waitLog(/asked for model new-painter, but flux-speed made it/);
    const listed = await pair(t, { provider: { models: ['*'], 'x.image_models': 'mine, other', 'x.video_models': 'film' } });
    assert.match((await listed.sdk.chat.completions.create({ model: 'mine', messages: [{ role: 'user', content: 'x' }] })).choices[0].message.content, /^!\[Image\]/);
    assert.equal((await request(listed.gw, { body: chat('film') })).status, 200);
});
