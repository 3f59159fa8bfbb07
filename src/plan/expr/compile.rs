//! From text to a typed physical expression: parse, resolve names, plan, coerce, simplify.

use std::ops::ControlFlow;
use std::sync::{Arc, OnceLock};

use arrow::datatypes::DataType;
use datafusion_common::config::ConfigOptions;
use datafusion_common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion_common::{Column, DFSchema, DFSchemaRef, DataFusionError, TableReference};
use datafusion_expr::execution_props::ExecutionProps;
use datafusion_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion_expr::planner::{ContextProvider, ExprPlanner};
use datafusion_expr::simplify::SimplifyContext;
use datafusion_expr::{
    AggregateUDF, Expr as Logical, ExprSchemable, HigherOrderUDF, Operator, ScalarUDF, TableSource, Volatility,
    WindowUDF,
};
use datafusion_optimizer::simplify_expressions::ExprSimplifier;
use datafusion_physical_expr::expressions::BinaryExpr;
use datafusion_physical_expr::{PhysicalExpr, create_physical_expr};
use datafusion_sql::planner::{ParserOptions, PlannerContext, SqlToRel};
use datafusion_sql::sqlparser::ast::{Expr as Sql, Ident, Value, VisitMut, VisitorMut};
use datafusion_sql::sqlparser::dialect::GenericDialect;
use datafusion_sql::sqlparser::parser::Parser;
use datafusion_sql::sqlparser::tokenizer::Token;

use super::{Expr, ExprError, engine_type, input_schema};

/// Longest expression, in bytes: bounds the recursion of everything behind the parser.
const TEXT_MAX: usize = 8 * 1024;
/// Deepest nesting of operators and calls.
const DEPTH_MAX: usize = 128;

/// What a name stands for.
#[derive(Clone, Debug)]
pub(in crate::plan) enum Resolution {
    /// An engine column.
    Column(String, DataType),
    /// An earlier expression of the same list, read by name.
    Computed(Box<Expr>),
    /// More than one thing; what to write instead.
    Ambiguous(Vec<String>),
    /// Something that exists and may not be read here; why, and what to do.
    Refused(String, String),
    /// Something that has a fault of its own.
    Broken,
}

/// The names that an expression may use.
#[derive(Clone, Debug, Default)]
pub(in crate::plan) struct Scope {
    names: Vec<(String, Resolution)>,
}

impl Scope {
    /// Adds a column under a visible name.
    pub fn column(&mut self, visible: &str, engine: &str, data_type: DataType) {
        self.add(visible, Resolution::Column(engine.to_string(), data_type));
    }

    /// Adds a name; a later one of the same spelling is not seen.
    pub fn add(&mut self, visible: &str, what: Resolution) {
        self.names.push((visible.to_string(), what));
    }

    /// What a name stands for.
    pub fn get(&self, name: &str) -> Option<&Resolution> {
        self.names.iter().find(|(n, _)| n == name).map(|(_, r)| r)
    }

    /// Takes away the columns for whose engine names `why` has a reason and a mend.
    pub fn refuse(&mut self, why: impl Fn(&str) -> Option<(String, String)>) {
        for (_, resolution) in &mut self.names {
            if let Resolution::Column(engine, _) = resolution
                && let Some((what, mend)) = why(engine)
            {
                *resolution = Resolution::Refused(what, mend);
            }
        }
    }

    /// The nearest name that may be read.
    pub fn nearest(&self, name: &str) -> Option<String> {
        let readable = self.names.iter().filter(|(_, r)| matches!(r, Resolution::Column(..) | Resolution::Computed(_)));
        crate::plan::nearest(name, readable.map(|(n, _)| n.as_str())).map(str::to_string)
    }

    /// Compiles `text` over these names.
    ///
    /// It runs on a thread of its own, for parser, visitor and planner recurse with large frames.
    pub fn compile(&self, text: &str) -> Result<Expr, ExprError> {
        const STACK_BYTES: usize = 64 << 20;
        let spawned = std::thread::scope(|threads| {
            let thread = std::thread::Builder::new().stack_size(STACK_BYTES);
            let running = thread.spawn_scoped(threads, || self.compile_here(text)).ok()?;
            Some(running.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
        });
        spawned.unwrap_or_else(|| {
            Err(ExprError::Unsupported {
                what: format!("`{text}` cannot be compiled: the system refuses a thread"),
                mend: "raise the limit on threads or memory".into(),
            })
        })
    }

    fn compile_here(&self, text: &str) -> Result<Expr, ExprError> {
        let mut sql = parse(text)?;
        let mut resolver = Resolver { scope: self, depth: 0, used: Vec::new(), unknown: Vec::new() };
        if let ControlFlow::Break(error) = VisitMut::visit(&mut sql, &mut resolver) {
            return Err(error);
        }
        if !resolver.unknown.is_empty() {
            return Err(ExprError::Unknown { names: resolver.unknown });
        }
        lower(text, sql, resolver.used)
    }
}

/// Checks only the words, for expressions whose columns are not known.
pub(in crate::plan) fn check_syntax(text: &str) -> Result<(), ExprError> {
    parse(text).map(drop)
}

fn parse(text: &str) -> Result<Sql, ExprError> {
    let syntax = |message: String| ExprError::Syntax { text: text.to_string(), message };
    if text.trim().is_empty() {
        return Err(syntax("it is empty".into()));
    }
    if text.len() > TEXT_MAX {
        return Err(ExprError::Unsupported {
            what: format!("an expression of {} bytes is too long", text.len()),
            mend: format!("split it into derived columns of at most {TEXT_MAX} bytes"),
        });
    }
    let dialect = GenericDialect {};
    let mut parser = Parser::new(&dialect).try_with_sql(text).map_err(|e| syntax(parser_message(&e.to_string())))?;
    let sql = parser.parse_expr().map_err(|e| syntax(parser_message(&e.to_string())))?;
    let rest = parser.peek_token();
    if rest.token != Token::EOF {
        return Err(syntax(format!(
            "`{}` at column {} follows a complete expression",
            rest.token, rest.span.start.column
        )));
    }
    Ok(sql)
}

/// Replaces every name by its engine column and refuses what is no scalar expression.
struct Resolver<'a> {
    scope: &'a Scope,
    depth: usize,
    used: Vec<(String, Used)>,
    unknown: Vec<(String, Option<String>)>,
}

enum Used {
    Column(DataType),
    Computed(Box<Expr>),
}

impl VisitorMut for Resolver<'_> {
    type Break = ExprError;

    fn pre_visit_expr(&mut self, sql: &mut Sql) -> ControlFlow<ExprError> {
        self.depth += 1;
        let refuse = |what: &str, mend: &str| {
            ControlFlow::Break(ExprError::Unsupported { what: what.to_string(), mend: mend.to_string() })
        };
        if self.depth > DEPTH_MAX {
            return refuse("the expression is nested too deeply", "split it into derived columns");
        }
        match sql {
            Sql::Subquery(_) | Sql::Exists { .. } | Sql::InSubquery { .. } => {
                refuse("subqueries cannot be used in an expression", "read other streams through a feature view")
            }
            Sql::Function(f) if f.over.is_some() => {
                refuse("window functions cannot be used in an expression", "declare the window under `aggregates`")
            }
            Sql::Function(f) if is_aggregate(&f.name.to_string()) => {
                let name = f.name.to_string().to_lowercase();
                refuse(
                    &format!("`{name}` is an aggregate and cannot be used in an expression"),
                    "declare it under `aggregates`; for the larger or smaller of several columns use greatest(a, b) or least(a, b)",
                )
            }
            Sql::Wildcard(_) | Sql::QualifiedWildcard(..) => {
                refuse("`*` cannot be used in an expression", "name the columns")
            }
            Sql::Lambda(_) => refuse("lambda functions cannot be used in an expression", ""),
            Sql::Value(v) if matches!(v.value, Value::Placeholder(_)) => refuse(
                "placeholders cannot be used in an expression",
                "write the value, or ${VARIABLE} for one from the environment",
            ),
            _ => ControlFlow::Continue(()),
        }
    }

    fn post_visit_expr(&mut self, sql: &mut Sql) -> ControlFlow<ExprError> {
        self.depth -= 1;
        let name = match sql {
            Sql::Identifier(ident) => ident.value.clone(),
            Sql::CompoundIdentifier(parts) => parts.iter().map(|p| p.value.as_str()).collect::<Vec<_>>().join("."),
            _ => return ControlFlow::Continue(()),
        };
        let (engine, used) = match self.scope.get(&name) {
            Some(Resolution::Column(engine, data_type)) => (engine.clone(), Used::Column(data_type.clone())),
            Some(Resolution::Computed(expr)) => (format!("\u{1}{name}"), Used::Computed(expr.clone())),
            Some(Resolution::Ambiguous(choices)) => {
                return ControlFlow::Break(ExprError::Ambiguous { name, choices: choices.clone() });
            }
            Some(Resolution::Refused(what, mend)) => {
                return ControlFlow::Break(ExprError::Unsupported { what: what.clone(), mend: mend.clone() });
            }
            Some(Resolution::Broken) => return ControlFlow::Break(ExprError::Broken { name }),
            None => {
                if !self.unknown.iter().any(|(n, _)| *n == name) {
                    let near = self.scope.nearest(&name);
                    self.unknown.push((name, near));
                }
                return ControlFlow::Continue(());
            }
        };
        if !self.used.iter().any(|(n, _)| *n == engine) {
            self.used.push((engine.clone(), used));
        }
        *sql = Sql::Identifier(Ident::with_quote('"', engine));
        ControlFlow::Continue(())
    }
}

fn is_aggregate(name: &str) -> bool {
    const NAMES: [&str; 14] = [
        "count",
        "sum",
        "avg",
        "mean",
        "min",
        "max",
        "stddev",
        "stddev_pop",
        "stddev_samp",
        "variance",
        "var_pop",
        "var_samp",
        "median",
        "array_agg",
    ];
    NAMES.contains(&name.to_lowercase().as_str())
}

/// Plans, coerces and simplifies resolved SQL.
fn lower(text: &str, sql: Sql, used: Vec<(String, Used)>) -> Result<Expr, ExprError> {
    let type_error = |message: String| ExprError::Type { text: text.to_string(), message };
    let from_datafusion = |e: DataFusionError| type_error(planner_message(&e));

    let visible: Vec<(String, DataType)> = used
        .iter()
        .map(|(name, used)| match used {
            Used::Column(t) => (name.clone(), t.clone()),
            Used::Computed(expr) => (name.clone(), expr.data_type.clone()),
        })
        .collect();
    let schema = df_schema(&visible).map_err(from_datafusion)?;
    let context = functions();
    let options = ParserOptions::new().with_enable_ident_normalization(false).with_map_string_types_to_utf8view(false);
    let planned = SqlToRel::new_with_options(context, options)
        .sql_to_expr(sql, &schema, &mut PlannerContext::new())
        .map_err(from_datafusion)?;
    refuse_volatile(&planned)?;

    let simplifier = |schema: &DFSchemaRef| {
        let info =
            SimplifyContext::builder().with_schema(schema.clone()).with_config_options(context.options.clone()).build();
        ExprSimplifier::new(info)
    };
    let typed = simplifier(&schema).coerce(planned, &schema).map_err(from_datafusion)?;
    let natural = typed.get_type(schema.as_ref()).map_err(from_datafusion)?;
    if natural == DataType::Null {
        return Err(type_error("it is always null".into()));
    }
    let data_type = engine_type(&natural)
        .ok_or_else(|| type_error(format!("its type, {natural}, is not one that a column can have")))?;
    let typed = if data_type == natural {
        typed
    } else {
        typed.cast_to(&data_type, schema.as_ref()).map_err(from_datafusion)?
    };

    // Names of earlier expressions give way to what they stand for.
    let inlined = typed
        .transform_up(|e| {
            Ok(match &e {
                Logical::Column(c) => match used.iter().find(|(name, _)| *name == c.name) {
                    Some((_, Used::Computed(expr))) => Transformed::yes(expr.logical.clone()),
                    _ => Transformed::no(e),
                },
                _ => Transformed::no(e),
            })
        })
        .map_err(from_datafusion)?
        .data;

    let columns = columns_of(&inlined, &used);
    let schema = df_schema(&columns).map_err(from_datafusion)?;
    let logical = simplifier(&schema).simplify(inlined).map_err(from_datafusion)?;

    // Simplification may have removed the last use of a column.
    let inputs = columns_of(&logical, &used);
    let schema = df_schema(&inputs).map_err(from_datafusion)?;
    let physical = create_physical_expr(&logical, &schema, &ExecutionProps::new(), &PhysicalPlanningContext::default())
        .map_err(from_datafusion)?;
    let physical = checked_arithmetic(physical).map_err(from_datafusion)?;
    Ok(Expr {
        text: text.to_string(),
        data_type,
        schema: input_schema(&inputs),
        inputs: inputs.into_iter().map(|(name, _)| name).collect(),
        physical,
        logical,
    })
}

fn df_schema(columns: &[(String, DataType)]) -> Result<DFSchemaRef, DataFusionError> {
    let schema = input_schema(columns);
    Ok(Arc::new(DFSchema::from_unqualified_fields(schema.fields().clone(), Default::default())?))
}

/// The engine columns that an expression reads, in the order of their first use.
fn columns_of(expr: &Logical, used: &[(String, Used)]) -> Vec<(String, DataType)> {
    let type_of = |name: &str| {
        used.iter().find_map(|(n, u)| match u {
            Used::Column(t) if n == name => Some(t.clone()),
            Used::Column(_) => None,
            Used::Computed(e) => e.schema.field_with_name(name).ok().map(|f| f.data_type().clone()),
        })
    };
    let mut columns: Vec<(String, DataType)> = Vec::new();
    let walked = expr.apply(|e| {
        if let Logical::Column(Column { name, .. }) = e
            && !columns.iter().any(|(n, _)| n == name)
            && let Some(t) = type_of(name)
        {
            columns.push((name.clone(), t));
        }
        Ok(TreeNodeRecursion::Continue)
    });
    debug_assert!(walked.is_ok());
    columns
}

fn refuse_volatile(expr: &Logical) -> Result<(), ExprError> {
    let mut found = None;
    let walked = expr.apply(|e| {
        if let Logical::ScalarFunction(f) = e
            && f.func.signature().volatility != Volatility::Immutable
        {
            found = Some(f.func.name().to_string());
            return Ok(TreeNodeRecursion::Stop);
        }
        Ok(TreeNodeRecursion::Continue)
    });
    debug_assert!(walked.is_ok());
    match found {
        None => Ok(()),
        Some(name) => Err(ExprError::Unsupported {
            what: format!(
                "`{name}()` is refused: its value depends on when and where it runs, so a replay could not repeat it"
            ),
            mend: "use the event's own time and columns".into(),
        }),
    }
}

/// Makes integer `+`, `-` and `*` fail on overflow instead of wrapping.
fn checked_arithmetic(expr: Arc<dyn PhysicalExpr>) -> Result<Arc<dyn PhysicalExpr>, DataFusionError> {
    let checked = expr.transform_up(|e| {
        let replaced = e.downcast_ref::<BinaryExpr>().and_then(|b| {
            matches!(b.op(), Operator::Plus | Operator::Minus | Operator::Multiply).then(|| {
                let b = BinaryExpr::new(b.left().clone(), *b.op(), b.right().clone()).with_fail_on_overflow(true);
                Arc::new(b) as Arc<dyn PhysicalExpr>
            })
        });
        Ok(match replaced {
            Some(new) => Transformed::yes(new),
            None => Transformed::no(e),
        })
    })?;
    Ok(checked.data)
}

/// The functions and literals that expressions may use.
struct Functions {
    options: Arc<ConfigOptions>,
    scalar: std::collections::HashMap<String, Arc<ScalarUDF>>,
    planners: Vec<Arc<dyn ExprPlanner>>,
}

fn functions() -> &'static Functions {
    static FUNCTIONS: OnceLock<Functions> = OnceLock::new();
    FUNCTIONS.get_or_init(|| {
        let mut scalar = std::collections::HashMap::new();
        for f in datafusion_functions::all_default_functions() {
            for alias in f.aliases() {
                scalar.insert(alias.clone(), f.clone());
            }
            scalar.insert(f.name().to_string(), f);
        }
        Functions {
            options: Arc::new(ConfigOptions::new()),
            scalar,
            planners: vec![
                Arc::new(datafusion_functions::core::planner::CoreFunctionPlanner::default()),
                Arc::new(datafusion_functions::datetime::planner::DatetimeFunctionPlanner),
                Arc::new(datafusion_functions::unicode::planner::UnicodeFunctionPlanner),
            ],
        }
    })
}

impl ContextProvider for Functions {
    fn get_table_source(&self, name: TableReference) -> datafusion_common::Result<Arc<dyn TableSource>> {
        Err(DataFusionError::Plan(format!("there is no table `{name}` in an expression")))
    }

    fn get_expr_planners(&self) -> &[Arc<dyn ExprPlanner>] {
        &self.planners
    }

    fn get_function_meta(&self, name: &str) -> Option<Arc<ScalarUDF>> {
        self.scalar.get(name).cloned()
    }

    fn get_higher_order_meta(&self, _name: &str) -> Option<Arc<HigherOrderUDF>> {
        None
    }

    fn get_aggregate_meta(&self, _name: &str) -> Option<Arc<AggregateUDF>> {
        None
    }

    fn get_window_meta(&self, _name: &str) -> Option<Arc<WindowUDF>> {
        None
    }

    fn get_variable_type(&self, _variable_names: &[String]) -> Option<DataType> {
        None
    }

    fn options(&self) -> &ConfigOptions {
        &self.options
    }

    fn udf_names(&self) -> Vec<String> {
        self.scalar.keys().cloned().collect()
    }

    fn higher_order_function_names(&self) -> Vec<String> {
        Vec::new()
    }

    fn udaf_names(&self) -> Vec<String> {
        Vec::new()
    }

    fn udwf_names(&self) -> Vec<String> {
        Vec::new()
    }
}

/// The SQL parser's message without its preamble: `expected: …, found: … at column 7`.
fn parser_message(message: &str) -> String {
    let message = message.strip_prefix("sql parser error: ").unwrap_or(message);
    lower_first(&message.replace("at Line: 1, Column: ", "at column "))
}

/// DataFusion's message without class names, hints for its developers and line breaks.
fn planner_message(error: &DataFusionError) -> String {
    plain(&error.strip_backtrace())
}

pub(super) fn plain(message: &str) -> String {
    const PREFIXES: [&str; 14] = [
        "Error during planning: ",
        "Schema error: ",
        "Execution error: ",
        "Arrow error: ",
        "Cast error: ",
        "Compute error: ",
        "Divide by zero error",
        "Arithmetic overflow: ",
        "Parser error: ",
        "Invalid argument error: ",
        "SQL error: ",
        "This feature is not implemented: ",
        "type_coercion\ncaused by\n",
        "Optimizer rule 'simplify_expressions' failed\ncaused by\n",
    ];
    let mut rest = message.trim();
    if rest.contains("Divide by zero error") {
        return "division by zero".into();
    }
    let overflow = rest.contains("Arithmetic overflow: ");
    while let Some(stripped) = PREFIXES.iter().find_map(|p| rest.strip_prefix(p)) {
        rest = stripped;
    }
    // "… No function matches …" is followed by lines of candidates that say more than the first line.
    let text =
        rest.lines().map(str::trim).filter(|l| !l.is_empty() && !l.starts_with("This issue was likely caused")).take(3);
    let text = text.collect::<Vec<_>>().join("; ");
    let text = text.trim_end_matches('.').trim_end();
    if overflow { format!("overflow: {}", lower_first(text)) } else { lower_first(text) }
}

fn lower_first(text: &str) -> String {
    let mut chars = text.chars();
    match (chars.next(), chars.next()) {
        // Names in capitals stay as they are.
        (Some(a), Some(b)) if a.is_uppercase() && !b.is_uppercase() => {
            a.to_lowercase().chain([b]).chain(chars).collect()
        }
        _ => text.to_string(),
    }
}
