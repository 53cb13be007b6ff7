// A field that takes effect with Enter or when it is left, and says when it holds
// nothing that can be understood.

import { useLayoutEffect, useState } from "preact/hooks";

export function Input({ value, set, label, placeholder, size }: {
  value: string;
  set(text: string): boolean; // false: not understood
  label: string;
  placeholder?: string;
  size: number;
}) {
  const [text, setText] = useState(value);
  const [bad, setBad] = useState(false);
  useLayoutEffect(() => { // not after the paint: what is typed by then stays
    setText(value);
    setBad(false);
  }, [value]);
  const commit = () => {
    if (text !== value) setBad(!set(text));
  };
  return (
    <input type="text" class="mono" value={text} aria-label={label} title={label} placeholder={placeholder} size={size} autocomplete="off" spellcheck={false} aria-invalid={bad}
      onInput={(e) => { setText(e.currentTarget.value); setBad(false); }} onBlur={commit}
      onKeyDown={(e) => {
        if (e.key === "Enter") commit();
        else if (e.key === "Escape") {
          setText(value);
          setBad(false);
          e.currentTarget.blur();
        }
      }} />
  );
}
