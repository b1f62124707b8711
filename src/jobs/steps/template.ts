/**
 * Texts with places for values: `{{job}}`, `{{steps.copy.message}}`; `{{#failed}}…{{/failed}}` is there when it is so (for a list once for each item),
 * `{{^failed}}…{{/failed}}` when it is not. What is not known is empty. In HTML every value is escaped.
 */
export type TemplateValue =
  | string
  | number
  | boolean
  | readonly TemplateValue[]
  | { readonly [key: string]: TemplateValue }

const PART = /\{\{([#^/]?)\s*([A-Za-z_][\w.-]*)\s*\}\}/g
const DEPTH_MAX = 10

type Node =
  | { readonly text: string }
  | { readonly value: string }
  | { readonly section: string; readonly inverted: boolean; readonly inside: readonly Node[] }

/** Throws an Error that says what is wrong with it. */
export function parseTemplate(text: string): readonly Node[] {
  const stack: { section: string; inverted: boolean; inside: Node[] }[] = [{ section: '', inverted: false, inside: [] }]
  let at = 0
  const top = () => stack.at(-1) as (typeof stack)[number]
  for (const match of text.matchAll(PART)) {
    const [whole, sign, name = ''] = match
    if (match.index > at) top().inside.push({ text: text.slice(at, match.index) })
    at = match.index + whole.length
    if (sign === '') top().inside.push({ value: name })
    else if (sign !== '/') {
      if (stack.length > DEPTH_MAX) throw new Error(`sections are nested more than ${DEPTH_MAX} deep`)
      stack.push({ section: name, inverted: sign === '^', inside: [] })
    } else {
      const { section, inverted, inside } = top()
      if (stack.length === 1 || section !== name)
        throw new Error(`{{/${name}}} ends a section that has not begun there`)
      stack.pop()
      top().inside.push({ section, inverted, inside })
    }
  }
  if (stack.length > 1) throw new Error(`section {{#${top().section}}} has no end`)
  if (at < text.length) top().inside.push({ text: text.slice(at) })
  return top().inside
}

export function render(
  text: string,
  values: TemplateValue,
  written: (text: string) => string = (plain) => plain,
): string {
  return fill(parseTemplate(text), [values], written)
}

export function escapeHtml(text: string): string {
  return text.replace(/[&<>"']/g, (character) => `&#${character.codePointAt(0)};`)
}

function fill(nodes: readonly Node[], scopes: readonly TemplateValue[], written: (text: string) => string): string {
  return nodes
    .map((node) => {
      if ('text' in node) return node.text
      if ('value' in node) {
        const found = lookUp(scopes, node.value)
        return found === undefined || typeof found === 'object' ? '' : written(String(found))
      }
      const value = lookUp(scopes, node.section)
      const items = Array.isArray(value) ? value : truthy(value) ? [value as TemplateValue] : []
      if (node.inverted) return items.length === 0 ? fill(node.inside, scopes, written) : ''
      return items.map((item: TemplateValue) => fill(node.inside, [item, ...scopes], written)).join('')
    })
    .join('')
}

function truthy(value: TemplateValue | undefined): boolean {
  return value !== undefined && value !== false && value !== '' && value !== 0
}

function lookUp(scopes: readonly TemplateValue[], name: string): TemplateValue | undefined {
  const path = name.split('.')
  for (const scope of scopes) {
    let value: TemplateValue | undefined = scope
    for (const key of path) value = member(value, key)
    if (value !== undefined) return value
  }
  return undefined
}

function member(value: TemplateValue | undefined, key: string): TemplateValue | undefined {
  if (typeof value !== 'object' || value === null || Array.isArray(value) || !Object.hasOwn(value, key))
    return undefined
  return (value as Readonly<Record<string, TemplateValue>>)[key]
}
