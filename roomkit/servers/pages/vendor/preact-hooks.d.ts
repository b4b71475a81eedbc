export type Ref<T> = { current: T };
export function useState<T>(initial: T | (() => T)): [T, (next: T | ((old: T) => T)) => void];
export function useRef<T>(initial: T): Ref<T>;
export function useEffect(run: () => void | (() => void), deps?: readonly unknown[]): void;
export function useLayoutEffect(run: () => void | (() => void), deps?: readonly unknown[]): void;
export function useMemo<T>(make: () => T, deps: readonly unknown[]): T;
export function useCallback<T>(callback: T, deps: readonly unknown[]): T;
export function useId(): string;
