// What a request of the Generative Language API must look like: protobuf JSON whose unknown members are refused, exactly one thing per part, calls that
// are answered in order, signatures that come back, schemas of the small kind.

/** What the fake answers instead of playing its behaviour. `expected`: the test meant it. */
export class Refusal extends Error {
    constructor(status, message, { details, html = false, expected = false } = {}) {
        super(message);
        Object.assign(this, { status, details, html, expected });
    }
}

const fail = (message) => {
    throw new Refusal(400, message);
};
const isObject = (v) => typeof v === 'object' && v !== null && !Array.isArray(v);

const camel = (name) => name.replace(/_([a-z0-9])/g, (_, c) => c.toUpperCase());

/** Members in camelCase, whichever of both spellings was sent; a member sent in both is refused. */
function members(v, path, known, required = []) {
    if (!isObject(v)) fail(`Invalid value at '${path}' (oneof), an object is expected`);
    const out = {};
    for (const [name, value] of Object.entries(v)) {
        const key = known.includes(name) ? name : camel(name);
        if (!known.includes(key)) fail(`Invalid JSON payload received. Unknown name "${name}" at '${path}': Cannot find field.`);
        if (key in out) fail(`'${path}.${name}' is set twice`);
        if (value !== null) out[key] = value;
    }
    for (const name of required) if (!(name in out)) fail(`${path}.${name} must be specified`);
    return out;
}

const string = (v, p) => typeof v === 'string' || fail(`Invalid value at '${p}' (TYPE_STRING), ${JSON.stringify(v)?.slice(0, 50)}`);
const bool = (v, p) => typeof v === 'boolean' || fail(`Invalid value at '${p}' (TYPE_BOOL)`);
const list = (v, p) => Array.isArray(v) || fail(`Invalid value at '${p}', a list is expected`);
const number = (v, p, min, max) => {
    if (typeof v !== 'number') fail(`Invalid value at '${p}' (TYPE_FLOAT)`);
    if (v < min || v > max) fail(`${p} must be in the range [${min}, ${max}]`);
};
const integer = (v, p, min = -(2 ** 31), max = 2 ** 31 - 1) => {
    if (!Number.isInteger(v)) fail(`Invalid value at '${p}' (TYPE_INT32), ${JSON.stringify(v)}`);
    if (v < min || v > max) fail(`Invalid value at '${p}': ${v} is not within [${min}, ${max}]`);
};
const oneOf = (v, p, ...names) => names.includes(v) || fail(`Invalid value at '${p}' (type.googleapis.com/…), ${JSON.stringify(v)}`);
const bytes = (v, p) => {
    string(v, p);
    if (v.length === 0 || !/^[A-Za-z0-9+/_-]+={0,2}$/.test(v)) fail(`Invalid value at '${p}' (TYPE_BYTES), Base64 decoding failed`);
};

// ---- parts and turns ---------------------------------------------------------------------------------------------

const KINDS = ['text', 'inlineData', 'fileData', 'functionCall', 'functionResponse', 'executableCode', 'codeExecutionResult', 'toolCall', 'toolResponse'];
const MIME = /^(image\/(png|jpeg|webp|heic|heif|gif)|audio\/(wav|mp3|mpeg|aiff|aac|ogg|flac)|video\/[a-z0-9.-]+|application\/(pdf|json)|text\/[a-z0-9.-]+)$/;

function checkPart(v, p) {
    const part = members(v, p, [...KINDS, 'thought', 'thoughtSignature', 'videoMetadata', 'mediaResolution']);
    const kinds = KINDS.filter((k) => k in part);
    if (kinds.length !== 1) fail(`${p}: required oneof field 'data' must have one initialized field`);
    if ('thought' in part) bool(part.thought, `${p}.thought`);
    if ('thoughtSignature' in part) bytes(part.thoughtSignature === 'skip_thought_signature_validator' ? 'c2tpcA==' : part.thoughtSignature, `${p}.thought_signature`);
    const value = part[kinds[0]];
    const at = `${p}.${kinds[0]}`;
    switch (kinds[0]) {
        case 'text':
            string(value, at);
            break;
        case 'inlineData': {
            const blob = members(value, at, ['mimeType', 'data', 'displayName'], ['mimeType', 'data']);
            bytes(blob.data, `${at}.data`);
            if (!MIME.test(blob.mimeType)) fail(`Unsupported MIME type: ${blob.mimeType}`);
            break;
        }
        case 'fileData': {
            const file = members(value, at, ['mimeType', 'fileUri', 'displayName'], ['fileUri']);
            if (!/^https:\/\//.test(file.fileUri)) fail(`Invalid or unsupported file uri: ${file.fileUri}`);
            break;
        }
        case 'functionCall': {
            const call = members(value, at, ['name', 'args', 'id'], ['name']);
            if ('args' in call && !isObject(call.args)) fail(`Invalid value at '${at}.args' (type.googleapis.com/google.protobuf.Struct)`);
            part.call = call;
            break;
        }
        case 'functionResponse': {
            const result = members(value, at, ['name', 'response', 'id', 'parts', 'willContinue', 'scheduling'], ['name', 'response']);
            if (!isObject(result.response)) fail(`Invalid value at '${at}.response' (type.googleapis.com/google.protobuf.Struct), ${JSON.stringify(result.response)}`);
            part.result = result;
            break;
        }
        default:
            break;
    }
    return part;
}

function checkContent(v, p) {
    const content = members(v, p, ['role', 'parts'], []);
    if (content.role !== undefined && !['user', 'model', 'function'].includes(content.role)) fail('Please use a valid role: user, model.');
    if (!Array.isArray(content.parts) || content.parts.length === 0) fail(`* GenerateContentRequest.${p}.parts: contents.parts must not be empty.`);
    return { role: content.role ?? 'user', parts: content.parts.map((part, i) => checkPart(part, `${p}.parts[${i}]`)) };
}

/** Calls and their results, and who follows whom. */
function checkTurns(contents, { model, signatures }) {
    let open = null; // calls of the preceding model turn
    const ids = { calls: new Set(), results: new Set() };
    const lastUser = contents.findLastIndex((c) => c.role !== 'model' && !c.parts.some((p) => p.result));
    contents.forEach((content, i) => {
        const calls = content.parts.filter((p) => p.call);
        const results = content.parts.filter((p) => p.result);
        if (results.length > 0 && content.role === 'model') fail('function responses belong to the user');
        if (calls.length > 0 && content.role !== 'model') fail('function calls belong to the model');
        if (open && results.length !== open.length)
            fail('Please ensure that the number of function response parts is equal to the number of function call parts of the function call turn.');
        if (!open && results.length > 0) fail('Please ensure that function response turn comes immediately after a function call turn.');
        if (results.length > 0) {
            if (results.length !== content.parts.length) fail('function responses share their content with other parts');
            for (const [k, { result }] of results.entries()) {
                const call = result.id === undefined ? open[k].call : open.find((o) => o.call.id === result.id)?.call;
                if (!call || (call.id === undefined) !== (result.id === undefined)) fail(`the function response ${result.id ?? result.name} has no call`);
                if (call.name !== result.name) fail(`function response ${result.name} answers the call of ${call.name}`);
            }
        }
        if (calls.length > 0) {
            const before = contents[i - 1];
            if (!before || before.role === 'model') fail('Please ensure that function call turn comes immediately after a user turn or after a function response turn.');
            if (model.gen >= 3 && i > lastUser) {
                const given = calls[0].thoughtSignature;
                if (!given) fail(`Function call is missing a thought_signature in functionCall parts. Additional data, function call \`default_api:${calls[0].call.name}\`, position ${i}.`);
                if (given !== 'skip_thought_signature_validator' && !signatures.has(given)) fail('Corrupted thought signature.');
            }
        }
        for (const part of content.parts) {
            if (part.call?.id) ids.calls.add(part.call.id);
            if (part.result?.id) ids.results.add(part.result.id);
        }
        open = calls.length > 0 ? calls : null;
        if (i > 0 && contents[i - 1].role === content.role && content.role === 'model') fail('two model turns in a row');
    });
    if (open) fail('the last function calls are not answered');
    if (contents.at(-1).role === 'model') fail('the conversation ends with a model turn');
    if (contents[0].role === 'model') fail('the conversation begins with a model turn');
}

// ---- tools and schemas -------------------------------------------------------------------------------------------

const TYPES = ['string', 'number', 'integer', 'boolean', 'array', 'object', 'null'];
const SCHEMA_MEMBERS = [
    'type', 'format', 'title', 'description', 'nullable', 'enum', 'items', 'maxItems', 'minItems', 'properties', 'required', 'minProperties', 'maxProperties', 'minLength', 'maxLength',
    'pattern', 'example', 'anyOf', 'propertyOrdering', 'default', 'minimum', 'maximum',
];

/** The OpenAPI-like subset of `parameters` and `responseSchema`. */
function checkSmallSchema(v, p) {
    const s = members(v, p, SCHEMA_MEMBERS);
    if (s.type !== undefined && (typeof s.type !== 'string' || !TYPES.includes(s.type.toLowerCase()))) fail(`Invalid value at '${p}.type'`);
    const type = s.type?.toLowerCase();
    if (s.format !== undefined && type === 'string' && !['enum', 'date-time'].includes(s.format)) fail(`${p}.format: only 'enum' and 'date-time' are supported for STRING type`);
    if (s.enum !== undefined) s.enum.forEach((e, i) => string(e, `${p}.enum[${i}]`));
    if (type === 'array' && s.items === undefined) fail(`${p}.items: missing field.`);
    if (type === 'object' && s.properties !== undefined && Object.keys(s.properties).length === 0) fail(`${p}.properties: should be non-empty for OBJECT type`);
    if (s.items) checkSmallSchema(s.items, `${p}.items`);
    for (const [name, sub] of Object.entries(s.properties ?? {})) checkSmallSchema(sub, `${p}.properties[${name}]`);
    for (const [i, sub] of (s.anyOf ?? []).entries()) checkSmallSchema(sub, `${p}.anyOf[${i}]`);
    for (const name of s.required ?? []) if (!Object.hasOwn(s.properties ?? {}, name)) fail(`${p}.required: property is not defined: ${name}`);
}

const JSON_SCHEMA_MEMBERS = [
    ...SCHEMA_MEMBERS, '$id', '$defs', '$ref', '$anchor', 'prefixItems', 'oneOf', 'additionalProperties', 'exclusiveMinimum', 'exclusiveMaximum', 'const', 'multipleOf', 'uniqueItems', 'not',
    'allOf', 'examples', 'definitions',
];

/** JSON Schema as `parametersJsonSchema` and `responseJsonSchema` take it; `$schema` is none of it, and references have to lead somewhere. */
function checkJsonSchema(v, p, root = v) {
    if (typeof v === 'boolean') return;
    if (!isObject(v)) fail(`Invalid value at '${p}'`);
    for (const name of Object.keys(v)) if (!JSON_SCHEMA_MEMBERS.includes(name)) fail(`${p}: unsupported keyword ${name}`);
    if (v.$ref !== undefined) {
        const target = v.$ref.replace(/^#\/?/, '').split('/').filter(Boolean).reduce((o, k) => o?.[k], root);
        if (target === undefined) fail(`${p}.$ref: ${v.$ref} leads nowhere`);
    }
    for (const key of ['items', 'additionalProperties', 'not']) if (isObject(v[key])) checkJsonSchema(v[key], `${p}.${key}`, root);
    for (const key of ['properties', '$defs', 'definitions']) for (const [name, sub] of Object.entries(v[key] ?? {})) checkJsonSchema(sub, `${p}.${key}.${name}`, root);
    for (const key of ['anyOf', 'oneOf', 'allOf', 'prefixItems']) for (const [i, sub] of (v[key] ?? []).entries()) checkJsonSchema(sub, `${p}.${key}[${i}]`, root);
}

function checkTools(tools, toolConfig) {
    const names = new Set();
    list(tools ?? [], 'tools');
    for (const [i, v] of (tools ?? []).entries()) {
        const tool = members(v, `tools[${i}]`, ['functionDeclarations', 'googleSearch', 'codeExecution', 'urlContext', 'googleSearchRetrieval', 'fileSearch', 'googleMaps', 'computerUse']);
        if (Object.keys(tool).length === 0) fail(`tools[${i}] is empty`);
        for (const [k, d] of (tool.functionDeclarations ?? []).entries()) {
            const p = `tools[${i}].function_declarations[${k}]`;
            const decl = members(d, p, ['name', 'description', 'parameters', 'parametersJsonSchema', 'response', 'responseJsonSchema', 'behavior'], ['name']);
            if (!/^[A-Za-z_][A-Za-z0-9_.:-]{0,127}$/.test(decl.name)) fail(`${p}.name: Invalid function name. Must start with a letter or an underscore.`);
            if (names.has(decl.name)) fail(`Duplicate function declaration found: ${decl.name}`);
            names.add(decl.name);
            if (decl.parameters && decl.parametersJsonSchema) fail(`${p}: parameters and parameters_json_schema exclude each other`);
            if (decl.parameters) checkSmallSchema(decl.parameters, `${p}.parameters`);
            if (decl.parametersJsonSchema) {
                checkJsonSchema(decl.parametersJsonSchema, `${p}.parameters_json_schema`);
                if (decl.parametersJsonSchema.type === 'object' && Object.keys(decl.parametersJsonSchema.properties ?? { x: 1 }).length === 0) fail(`${p}: properties must not be empty`);
            }
        }
    }
    if (toolConfig === undefined) return;
    const config = members(toolConfig, 'tool_config', ['functionCallingConfig', 'retrievalConfig']);
    if (!config.functionCallingConfig) return;
    const calling = members(config.functionCallingConfig, 'tool_config.function_calling_config', ['mode', 'allowedFunctionNames']);
    oneOf(calling.mode ?? 'AUTO', 'mode', 'AUTO', 'ANY', 'NONE', 'VALIDATED');
    if (names.size === 0) fail('Function calling config is set without function_declarations.');
    for (const name of calling.allowedFunctionNames ?? []) {
        if (!['ANY', 'VALIDATED'].includes(calling.mode)) fail('Allowed function names should be set only when function calling mode is ANY.');
        if (!names.has(name)) fail(`allowed_function_names: ${name} is not declared`);
    }
}

// ---- generationConfig --------------------------------------------------------------------------------------------

const CONFIG = [
    'temperature', 'topP', 'topK', 'candidateCount', 'maxOutputTokens', 'stopSequences', 'seed', 'presencePenalty', 'frequencyPenalty', 'responseMimeType', 'responseSchema',
    'responseJsonSchema', 'responseLogprobs', 'logprobs', 'responseModalities', 'thinkingConfig', 'imageConfig', 'speechConfig', 'mediaResolution', 'enableEnhancedCivicAnswers',
];

function checkThinking(v, model) {
    const t = members(v, 'generation_config.thinking_config', ['includeThoughts', 'thinkingBudget', 'thinkingLevel']);
    if (model.image) fail('Thinking is not supported by this model');
    if ('includeThoughts' in t) bool(t.includeThoughts, 'include_thoughts');
    if ('thinkingBudget' in t && 'thinkingLevel' in t) fail('You can only set only one of thinking budget and thinking level.');
    if ('thinkingLevel' in t) {
        if (model.gen < 3) fail('Thinking level is not supported for this model.');
        const levels = model.pro ? ['LOW', 'HIGH'] : ['MINIMAL', 'LOW', 'MEDIUM', 'HIGH'];
        if (!levels.includes(t.thinkingLevel)) fail(`Thinking level ${t.thinkingLevel} is not supported for this model.`);
    }
    if ('thinkingBudget' in t) {
        const b = t.thinkingBudget;
        const [low, high] = model.pro ? [128, 32_768] : [0, 24_576];
        if (b !== -1 && (!Number.isInteger(b) || b < low || b > high)) fail(`The thinking budget ${b} is invalid. Please choose a value between ${low} and ${high}.`);
    }
}

function checkConfig(v, body, model) {
    const c = members(v, 'generation_config', CONFIG);
    if ('temperature' in c) number(c.temperature, 'temperature', 0, 2);
    if ('topP' in c) number(c.topP, 'top_p', 0, 1);
    if ('topK' in c) integer(c.topK, 'top_k', 1);
    if ('candidateCount' in c) integer(c.candidateCount, 'candidate_count', 1, 8);
    if ('maxOutputTokens' in c) integer(c.maxOutputTokens, 'max_output_tokens', 1, model.output);
    if ('seed' in c) integer(c.seed, 'seed');
    for (const name of ['presencePenalty', 'frequencyPenalty']) if (name in c) number(c[name], name, -2, 2);
    if ('stopSequences' in c) {
        list(c.stopSequences, 'stop_sequences');
        if (c.stopSequences.length < 1 || c.stopSequences.length > 5) fail('The number of stop sequences must be at most 5');
        c.stopSequences.forEach((s) => (string(s, 'stop_sequences'), s.length > 0 || fail('stop_sequences must not be empty')));
    }
    if ('responseMimeType' in c) oneOf(c.responseMimeType, 'response_mime_type', 'text/plain', 'application/json', 'text/x.enum');
    if ('responseSchema' in c && 'responseJsonSchema' in c) fail('response_schema and response_json_schema exclude each other');
    if (('responseSchema' in c || 'responseJsonSchema' in c) && !['application/json', 'text/x.enum'].includes(c.responseMimeType))
        fail("Controlled generation of only application/json and text/x.enum is allowed");
    if ('responseSchema' in c) checkSmallSchema(c.responseSchema, 'generation_config.response_schema');
    if ('responseJsonSchema' in c) checkJsonSchema(c.responseJsonSchema, 'generation_config.response_json_schema');
    if (c.responseMimeType === 'application/json' && model.gen < 3 && (body.tools ?? []).some((t) => t.functionDeclarations ?? t.function_declarations))
        fail("Function calling with a response mime type: 'application/json' is unsupported");
    if ('responseLogprobs' in c || 'logprobs' in c) fail('Logprobs is not enabled for this model');
    if ('responseModalities' in c) c.responseModalities.forEach((m) => oneOf(m, 'response_modalities', 'TEXT', ...(model.image ? ['IMAGE'] : [])));
    if ('thinkingConfig' in c) checkThinking(c.thinkingConfig, model);
}

// ---- whole bodies ------------------------------------------------------------------------------------------------

const CONTENT_BODY = ['contents', 'systemInstruction', 'tools', 'toolConfig', 'generationConfig', 'safetySettings', 'cachedContent', 'serviceTier', 'store', 'labels', 'model'];

export function checkContentBody(v, context) {
    const body = members(v, 'root', CONTENT_BODY);
    if ('model' in body && body.model !== `models/${context.name}`) fail(`model is ${body.model}`);
    list(body.contents, 'contents');
    if (body.contents.length === 0) fail('* GenerateContentRequest.contents: contents is not specified');
    checkTurns(body.contents.map((c, i) => checkContent(c, `contents[${i}]`)), context);
    if (body.systemInstruction) {
        const system = checkContent(body.systemInstruction, 'system_instruction');
        if (system.parts.some((p) => !('text' in p))) fail('system_instruction takes text only');
    }
    checkTools(body.tools, body.toolConfig);
    if (body.generationConfig) checkConfig(body.generationConfig, body, context.model);
    for (const s of body.safetySettings ?? []) {
        const setting = members(s, 'safety_settings', ['category', 'threshold'], ['category', 'threshold']);
        if (!/^HARM_CATEGORY_/.test(setting.category)) fail('safety_settings.category');
    }
}

export function checkCountBody(v, context) {
    const body = members(v, 'root', ['contents', 'generateContentRequest', 'model']);
    if ('generateContentRequest' in body) {
        if (body.contents) fail('only one of contents and generate_content_request');
        if (body.generateContentRequest.model !== `models/${context.name}`) fail(`generate_content_request.model is ${body.generateContentRequest.model}`);
        return checkContentBody(body.generateContentRequest, context);
    }
    list(body.contents, 'contents');
    body.contents.forEach((c, i) => checkContent(c, `contents[${i}]`));
}

export function checkEmbedBody(v, context) {
    const body = members(v, 'root', ['model', 'content', 'taskType', 'title', 'outputDimensionality'], ['content']);
    if ('model' in body && body.model !== `models/${context.name}`) fail(`model is ${body.model}`);
    const content = checkContent(body.content, 'content');
    if (content.parts.some((p) => typeof p.text !== 'string' || p.text === '')) fail('content must be text and not empty');
    if ('outputDimensionality' in body) integer(body.outputDimensionality, 'output_dimensionality', 1, 3072);
    if ('taskType' in body)
        oneOf(body.taskType, 'task_type', 'RETRIEVAL_QUERY', 'RETRIEVAL_DOCUMENT', 'SEMANTIC_SIMILARITY', 'CLASSIFICATION', 'CLUSTERING', 'QUESTION_ANSWERING', 'FACT_VERIFICATION', 'CODE_RETRIEVAL_QUERY');
}

export function checkBatchEmbedBody(v, context) {
    const body = members(v, 'root', ['requests', 'model'], ['requests']);
    list(body.requests, 'requests');
    if (body.requests.length < 1 || body.requests.length > 100) fail('at most 100 requests can be in one batch');
    for (const r of body.requests) {
        if (r.model !== `models/${context.name}`) fail(`requests[].model is ${r.model}`);
        checkEmbedBody(r, context);
    }
}
