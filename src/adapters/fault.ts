/** Something wrong in a definition. `path` is a JSON Pointer below what was checked, such as `/from/0`. */
export type Fault = { readonly path: string; readonly message: string }
