// Prints the configuration in argv[1] as JSON. `process.env.X` is the text "\u0001X\u0002" in it, or "\u0001X\u0003default\u0002"
// if the file has a default for a variable that is not set.
const file = require('path').resolve(process.argv[1]);
const own = process.env;
const print = process.stdout.write.bind(process.stdout);
process.stdout.write = process.stderr.write.bind(process.stderr);

function load(env) {
    process.env = env;
    for (const name of Object.keys(require.cache)) delete require.cache[name];
    try {
        const value = require(file);
        return JSON.parse(JSON.stringify(value && value.default || value));
    } finally {
        process.env = own;
    }
}

const attempt = (env) => { try { return load(env); } catch { return undefined; } };
const isVariable = (name) => typeof name === 'string' && /^[A-Za-z_][A-Za-z0-9_]*$/.test(name) && !(name in Object.prototype)
    && name !== 'toJSON' && name !== 'then';
const marks = new Proxy({ ...own }, { get: (all, name) => isVariable(name) ? `\u0001${name}\u0002` : all[name] });

function withDefault(marked, unset) {
    const [before, name, after] = marked.split(/\u0001|\u0002/);
    const text = String(unset);
    const middle = text.slice(before.length, text.length - after.length);
    const fits = marked.split('\u0001').length === 2 && unset !== undefined && unset !== null && typeof unset !== 'object'
        && text === before + middle + after && middle !== 'undefined' && middle !== '';
    return fits ? `${before}\u0001${name}\u0003${middle}\u0002${after}` : marked;
}

function merge(real, marked, unset) {
    if (typeof marked === 'string' && marked.includes('\u0001')) return withDefault(marked, unset);
    const isObject = (value) => value !== null && typeof value === 'object';
    if (Array.isArray(real) && Array.isArray(marked) && real.length === marked.length) {
        return real.map((value, index) => merge(value, marked[index], isObject(unset) ? unset[index] : undefined));
    }
    if (isObject(real) && isObject(marked) && !Array.isArray(real) && !Array.isArray(marked)) {
        const names = Object.keys({ ...real, ...marked });
        return Object.fromEntries(names.map((name) => [name, merge(real[name], marked[name], isObject(unset) ? unset[name] : undefined)]));
    }
    return real;
}

let result;
try {
    const real = load(own);
    result = { value: merge(real, attempt(marks), attempt({})) };
} catch (error) {
    result = { error: String(error && error.message || error), code: String(error && error.code) };
}
print(JSON.stringify(result), () => process.exit(0));
